"""Schedules, edits, retention, kept answers, purges, backups, idempotency keys, and probes of embedders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("embedders", sa.Column("spec", sa.String(), nullable=True))
    # The packaged model was known by its name alone; no folder and no hub name is called so.
    op.execute("UPDATE embedders SET spec = CASE name WHEN 'all-MiniLM-L6-v2' THEN 'default' ELSE name END")

    op.add_column("indexes", sa.Column("checked", sa.JSON(), nullable=True))
    op.add_column("indexes", sa.Column("activated_at", sa.DateTime(), nullable=True))
    op.add_column("indexes", sa.Column("retired_at", sa.DateTime(), nullable=True))
    op.execute("UPDATE indexes SET activated_at = created_at WHERE state = 'active'")
    op.create_table(
        "embedder_probes",
        sa.Column("index_id", sa.Integer(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("coverage", sa.Float(), nullable=False),
        sa.Column("found", sa.Float(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("probed_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["index_id"], ["indexes.id"], name=op.f("fk_embedder_probes_index_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("index_id", "language", name=op.f("pk_embedder_probes")),
    )

    op.add_column("sources", sa.Column("refresh", sa.String(), nullable=True))
    op.add_column("sources", sa.Column("watch", sa.Boolean(), server_default=sa.false(), nullable=False))

    op.add_column("documents", sa.Column("edited_title", sa.String(), nullable=True))
    op.add_column("documents", sa.Column("tags", sa.JSON(), server_default="[]", nullable=False))
    op.rename_table("document_metadata", "document_metadata_0001")
    op.create_table(  # a column that joins the primary key makes another table
        "document_metadata",
        sa.Column("document_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("edited", sa.Boolean(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("number", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_document_metadata_document_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("document_id", "key", "edited", name=op.f("pk_document_metadata")),
    )
    op.execute(
        "INSERT INTO document_metadata (document_id, key, edited, type, text, number) "
        "SELECT document_id, key, 0, type, text, number FROM document_metadata_0001"
    )
    op.drop_table("document_metadata_0001")
    for column in ("text", "number"):
        op.create_index(f"ix_document_metadata_{column}", "document_metadata", ["key", "edited", "type", column])

    op.add_column("versions", sa.Column("removed_at", sa.DateTime(), nullable=True))
    op.create_index(
        "ix_versions_kept", "versions", ["document_id", "number"], sqlite_where=sa.text("removed_at IS NULL")
    )
    op.create_index(op.f("ix_chunks_embedded_sha256"), "chunks", ["embedded_sha256"])
    op.create_table(
        "purged",
        sa.Column("document_id", sa.String(), nullable=False),
        sa.Column("purged_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("document_id", name=op.f("pk_purged")),
    )
    op.create_table(
        "answers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("refused", sa.Boolean(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_answers")),
    )
    op.create_index(op.f("ix_answers_created_at"), "answers", ["created_at"])
    op.create_table(
        "answer_citations",
        sa.Column("answer_id", sa.String(), nullable=False),
        sa.Column("document_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["answer_id"], ["answers.id"], name=op.f("fk_answer_citations_answer_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("answer_id", "document_id", "version", name=op.f("pk_answer_citations")),
    )
    op.create_index("ix_answer_citations_version", "answer_citations", ["document_id", "version"])
    op.create_table(
        "backups",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("change", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
    )
    op.create_table(
        "idempotency",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"])

    op.add_column("jobs", sa.Column("chunks", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("bytes", sa.Integer(), server_default="0", nullable=False))

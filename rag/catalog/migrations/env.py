"""Run by Alembic with the catalog's own connection; there is no alembic.ini, because users never call Alembic."""

from __future__ import annotations

from alembic import context

from rag.catalog.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()

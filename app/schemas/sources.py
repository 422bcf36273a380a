"""Sources over the wire: configurations, schedules, plans."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from app.schemas.common import Name, ProblemOut, Strict
from rag.models import SourceRecord


class FolderConfig(Strict):
    path: Annotated[str, StringConstraints(min_length=1)] = Field(examples=["/srv/manuals"])
    include: list[str] = Field(default_factory=list, examples=[["*.pdf", "policies/**"]])
    exclude: list[str] = Field(default_factory=list)
    passwords_env: str | None = Field(
        None, description="Variable ATTEST_… with passwords of encrypted files, one a line."
    )


class CrawlConfig(Strict):
    depth: int = Field(2, ge=0, le=10)
    max_pages: int = Field(200, ge=1, le=10_000)


class WebConfig(Strict):
    urls: list[str] = Field(default_factory=list, examples=[["https://example.org/help/"]])
    sitemap: str | None = None
    crawl: CrawlConfig | None = None
    include: list[str] = Field(default_factory=list)
    exclude: list[str] = Field(default_factory=list)
    allow_private: bool = Field(False, description="Permit addresses of your own network. Off by default on purpose.")
    headers_env: dict[str, str] = Field(
        default_factory=dict,
        description="Header → variable ATTEST_… that holds its value.",
        examples=[{"Cookie": "ATTEST_WIKI_COOKIE"}],
    )
    passwords_env: str | None = None


class TableConfig(Strict):
    name: str
    key: list[str] = Field(default_factory=list)
    text_columns: list[str] | None = None
    metadata_columns: list[str] = Field(default_factory=list)
    title_columns: list[str] = Field(default_factory=list)
    updated_at: str | None = None


class DatabaseConfig(Strict):
    url_env: str = Field(description="Variable ATTEST_DB_… that holds the URL.", examples=["ATTEST_DB_PRODUCTS"])
    tables: list[str | TableConfig] | None = Field(None, description="Names or tables; none means all tables.")
    query: str | None = Field(None, description="One SELECT instead of tables; needs `key`.")
    query_name: str = "query"
    key: list[str] = Field(default_factory=list)
    text_columns: list[str] | None = None
    metadata_columns: list[str] = Field(default_factory=list)
    title_columns: list[str] = Field(default_factory=list)
    updated_at: str | None = None
    labels: dict[str, list[str]] = Field(
        default_factory=dict, description="Table → columns that name its rows where a foreign key points at them."
    )


Refresh = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=200),
    Field(
        description="When it is synced by itself: `15m`, `2h`, `1d`, `daily 03:00`, `weekly mon 03:00` or five cron "
        "fields, in the machine's time zone. Empty or null: only when asked.",
        examples=["15m", "daily 03:00", "*/30 8-18 * * mon-fri"],
    ),
]


class AnySourceIn(Strict):
    name: Name
    refresh: Refresh | None = None
    watch: bool = Field(False, description="Folders only: sync when files in it have changed and come to rest.")


class FolderSourceIn(AnySourceIn):
    kind: Literal["folder"]
    config: FolderConfig


class WebSourceIn(AnySourceIn):
    kind: Literal["web"]
    config: WebConfig


class DatabaseSourceIn(AnySourceIn):
    kind: Literal["database"]
    config: DatabaseConfig


SourceIn = Annotated[FolderSourceIn | WebSourceIn | DatabaseSourceIn, Field(discriminator="kind")]


class SourcePatch(Strict):
    name: Name | None = None
    config: dict[str, Any] | None = Field(None, description="Replaces the whole configuration.")
    refresh: Refresh | None = None
    watch: bool | None = Field(None, description="Folders only: sync when files in it have changed.")


class SourceOut(BaseModel):
    id: str
    collection_id: str
    name: str
    kind: str
    config: dict[str, Any]
    created_at: datetime
    synced_at: datetime | None
    refresh: str | None
    next_sync_at: datetime | None = Field(description="By `refresh`; null where no service runs that stays.")
    watch: bool
    watch_state: str | None = Field(description="How the watching goes, and why not otherwise; null without `watch`.")

    @classmethod
    def of(
        cls, source: SourceRecord, *, next_sync_at: datetime | None = None, watch_state: str | None = None
    ) -> SourceOut:
        return cls(
            id=source.id,
            collection_id=source.collection_id,
            name=source.name,
            kind=source.kind,
            config=dict(source.config),
            created_at=source.created_at,
            synced_at=source.synced_at,
            refresh=source.refresh,
            next_sync_at=next_sync_at,
            watch=source.watch,
            watch_state=watch_state,
        )


class SourceList(BaseModel):
    data: list[SourceOut]
    next_cursor: str | None


class SyncRequest(Strict):
    dry_run: bool = Field(False, description="Answer with the plan and change nothing.")
    allow_deletes: bool = Field(
        False, description="Permit a plan that removes more than ATTEST_MAX_DELETE_SHARE of the source, or all of it."
    )
    verify: bool = Field(False, description="Read everything, whatever the source says of it.")


class PlanItem(BaseModel):
    state: Literal["added", "changed", "unchanged", "deleted", "failed"]
    key: str
    uri: str
    reason: str = Field(description="Why, in a few words.")


class Plan(BaseModel):
    counts: dict[str, int]
    items: list[PlanItem] = Field(description="All that is not unchanged.")
    problem: ProblemOut | None = Field(
        None, description="Why a sync would delete nothing: the listing broke off, is empty, or lacks too much."
    )

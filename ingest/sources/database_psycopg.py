"""Dates and times of PostgreSQL as the server writes them. Apart because its class needs psycopg at import."""

from __future__ import annotations

from typing import Any

from psycopg.abc import Buffer
from psycopg.adapt import Loader

from ingest.sources.rows import Stamp


class StampLoader(Loader):
    """ISO text, whatever the year; SET LOCAL datestyle has seen to the form."""

    def load(self, data: Buffer) -> Stamp:
        return Stamp(bytes(data).decode())


def register_stamps(connection: Any) -> None:
    for type_name in ("date", "time", "timetz", "timestamp", "timestamptz", "interval"):
        connection.adapters.register_loader(type_name, StampLoader)

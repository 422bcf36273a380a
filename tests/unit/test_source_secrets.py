"""What a source may read of the environment: the variables that it names, and never a key of the service."""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from ingest.sources.database import DatabaseSource
from ingest.sources.registry import Limits, open_source, read_options
from rag.errors import InvalidInput
from rag.models import SourceRecord
from rag.ports import Source
from rag.settings import Settings

OWN_SECRETS = [
    name
    for name, field in Settings.model_fields.items()
    if SecretStr in (field.annotation, *get_args(field.annotation))
]


class Watched(dict[str, str]):
    """An environment that remembers which of our variables were read."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.read: list[str] = []

    def get(self, name: str, default: Any = None) -> Any:
        self._note(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> str:
        self._note(name)
        return super().__getitem__(name)

    def _note(self, name: str) -> None:
        if name.startswith("ATTEST_"):  # ssl and others have variables of their own
            self.read.append(name)


@pytest.fixture
def database(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "shop.sqlite") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    connection.close()
    return f"sqlite:///{tmp_path / 'shop.sqlite'}"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched({"ATTEST_ADMIN_KEY": "k1", "ATTEST_LLM_API_KEY": "k2", "ATTEST_DB_OTHER": "k3", "HOME": "/root"})
    monkeypatch.setattr(os, "environ", watched)
    monkeypatch.chdir(tmp_path)
    return watched


def record(kind: str, **config: object) -> SourceRecord:
    return SourceRecord("s1", "c1", "source", kind, config, datetime.now(UTC))


def opened(source: SourceRecord, tmp_path: Path) -> Source:
    limits = Limits([tmp_path], max_file_bytes=1000, max_page_bytes=1000, delay_seconds=0)
    return open_source(source, limits=limits, base=None)  # type: ignore[arg-type]  # only uploads need it


def test_only_the_named_variable_is_read(environment: Watched, database: str, tmp_path: Path) -> None:
    environment["ATTEST_DB_SHOP"] = database
    assert isinstance(opened(record("database", url_env="ATTEST_DB_SHOP"), tmp_path), DatabaseSource)
    assert environment.read == ["ATTEST_DB_SHOP"]


def test_a_variable_may_stand_in_the_settings_file(environment: Watched, database: str, tmp_path: Path) -> None:
    """As .env.example shows it; the environment goes before it."""
    (tmp_path / ".env").write_text(f"ATTEST_PORT=8001\nATTEST_DB_SHOP={database}\nATTEST_DB_GONE=\n", "utf-8")
    assert isinstance(opened(record("database", url_env="ATTEST_DB_SHOP"), tmp_path), DatabaseSource)
    environment["ATTEST_DB_SHOP"] = "sqlite://"
    with pytest.raises(InvalidInput, match="names no file"):
        opened(record("database", url_env="ATTEST_DB_SHOP"), tmp_path)
    with pytest.raises(InvalidInput, match="ATTEST_DB_GONE is not set"):
        opened(record("database", url_env="ATTEST_DB_GONE"), tmp_path)


@pytest.mark.parametrize("variable", ["HOME", "ATTEST_ADMIN_KEY", "ATTEST_PORT", "attest_db_shop", "DB_SHOP", ""])
def test_a_database_url_comes_from_a_variable_for_databases(
    environment: Watched, tmp_path: Path, variable: str
) -> None:
    with pytest.raises(InvalidInput, match="ATTEST_DB_"):
        opened(record("database", url_env=variable), tmp_path)
    assert environment.read == []


@pytest.mark.parametrize("secret", OWN_SECRETS)
def test_no_source_can_send_a_key_of_the_service_away(environment: Watched, tmp_path: Path, secret: str) -> None:
    """A header goes wherever the source's URL points."""
    variable = f"ATTEST_{secret.upper()}"
    web = record("web", urls=["https://example.org/"], headers_env={"Cookie": variable})
    with pytest.raises(InvalidInput, match=variable):
        opened(web, tmp_path)
    with pytest.raises(InvalidInput, match=variable):
        read_options(record("folder", path=str(tmp_path), passwords_env=variable), ocr=False)
    assert environment.read == []


def test_headers_and_passwords_come_from_variables_of_their_own(environment: Watched, tmp_path: Path) -> None:
    environment |= {"ATTEST_WIKI_COOKIE": "session=1", "ATTEST_PDF_PASSWORDS": "one\ntwo"}
    assert read_options(record("folder", passwords_env="ATTEST_PDF_PASSWORDS"), ocr=False).passwords == ("one", "two")
    opened(record("web", urls=["https://example.org/"], headers_env={"Cookie": "ATTEST_WIKI_COOKIE"}), tmp_path)
    assert environment.read == ["ATTEST_PDF_PASSWORDS", "ATTEST_WIKI_COOKIE"]
    assert read_options(record("folder"), ocr=False).passwords == ()
    assert read_options(record("upload"), ocr=False).passwords == ("one", "two")

"""The kinds of sources: a stored configuration becomes something that can be listed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from ingest.readers.options import ReadOptions
from ingest.readers.registry import SUPPORTED_SUFFIXES
from ingest.sources.database import DatabaseSource
from ingest.sources.folder import FolderSource
from ingest.sources.uploads import UploadSource
from ingest.sources.web import WebSource
from rag.errors import InvalidInput
from rag.knowledge import KnowledgeBase
from rag.models import SourceRecord
from rag.ports import Source

# Secrets are named in a source's configuration and read here, so that the catalog never holds one. Only variables
# with our prefix, and none of the service's own keys: whoever may add a source says where its secrets are sent.
_PREFIX = "ATTEST_"
_DATABASE_PREFIX = "ATTEST_DB_"
_DOTENV = Path(".env")
_UPLOAD_PASSWORDS = "ATTEST_PDF_PASSWORDS"
_OWN_SECRETS = ("ATTEST_ADMIN_", "ATTEST_LLM_")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the owner of the service allows its sources."""

    allowed_roots: Sequence[Path]
    max_file_bytes: int
    max_page_bytes: int
    delay_seconds: float
    private: Path | None = None  # our own data folder, which no source may look into


def open_source(record: SourceRecord, *, limits: Limits, base: KnowledgeBase, verify: bool = False) -> Source:
    """With `verify` nothing is asked whether it changed: a server may say so wrongly. Nothing is contacted yet.

    Raises InvalidInput or NotAllowed where the configuration cannot be used.
    """
    opener = _OPENERS.get(record.kind)
    if opener is None:
        if record.kind == "upload":
            return UploadSource(record.id, base=base)
        raise InvalidInput(f"“{record.kind}” is no kind of source.", remedy="Use folder, web or database.")
    return opener(record.config, limits, verify)


def read_options(record: SourceRecord, *, ocr: bool) -> ReadOptions:
    """How this source's documents are read; passwords come from the variable that `passwords_env` names, one a line.

    Uploads have no configuration: for them it is ATTEST_PDF_PASSWORDS, where that is set.
    """
    name = record.config.get("passwords_env")
    if name:
        return ReadOptions(passwords=tuple(_secret(str(name)).splitlines()), ocr=ocr)
    found = _value(_UPLOAD_PASSWORDS) if record.kind == "upload" else None
    return ReadOptions(passwords=tuple((found or "").splitlines()), ocr=ocr)


def _folder(config: Mapping[str, Any], limits: Limits, _verify: bool) -> Source:
    return FolderSource(
        path=Path(config["path"]).expanduser(),
        include=config.get("include") or (),
        exclude=config.get("exclude") or (),
        allowed_roots=limits.allowed_roots,
        max_bytes=limits.max_file_bytes,
        suffixes=SUPPORTED_SUFFIXES,
        private=limits.private,
    )


def _web(config: Mapping[str, Any], limits: Limits, verify: bool) -> Source:
    crawl = config.get("crawl")
    return WebSource(
        urls=config.get("urls") or (),
        sitemap=config.get("sitemap"),
        crawl_depth=crawl.get("depth", 2) if crawl is not None else None,
        crawl_max_pages=(crawl or {}).get("max_pages", 200),
        include=config.get("include") or (),
        exclude=config.get("exclude") or (),
        allow_private=bool(config.get("allow_private")),
        headers={name: _secret(variable) for name, variable in (config.get("headers_env") or {}).items()},
        delay_seconds=limits.delay_seconds,
        max_bytes=limits.max_page_bytes,
        conditional=not verify,
    )


def _database(config: Mapping[str, Any], limits: Limits, verify: bool) -> Source:
    options = {
        key: value for key, value in config.items() if key not in ("url_env", "passwords_env") and value is not None
    }
    url = _secret(str(config["url_env"]), prefix=_DATABASE_PREFIX)
    return DatabaseSource(url=url, allowed_roots=limits.allowed_roots, verify=verify, **options)


def _secret(variable: str, *, prefix: str = _PREFIX) -> str:
    """The variable's value in the environment, else in `.env` as the settings have it; no other is looked at."""
    if not variable.startswith(prefix) or variable.upper().startswith(_OWN_SECRETS):
        raise InvalidInput(
            f"A source may read a variable {prefix}… that is its own, and “{variable}” is none.",
            remedy=f"Put the secret into a variable {prefix}… where the service runs, and name that one.",
        )
    value = _value(variable)
    if not value:
        raise InvalidInput(
            f"The environment variable {variable} is not set.",
            remedy="Set it where the service runs or in its .env, then restart the service.",
        )
    return value


def _value(variable: str) -> str | None:
    return os.environ.get(variable) or dotenv_values(_DOTENV).get(variable)


_OPENERS: dict[str, Callable[[Mapping[str, Any], Limits, bool], Source]] = {
    "folder": _folder,
    "web": _web,
    "database": _database,
}

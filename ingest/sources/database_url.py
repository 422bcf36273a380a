"""What a database URL says, and what of it must never be said again: user, password and address."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote

from rag.errors import InvalidInput, NotAllowed

if TYPE_CHECKING:
    from sqlalchemy import URL

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "mariadb+pymysql": "mysql+pymysql",
}
URL_REMEDY = (
    "Write it as postgresql://user:password@host:5432/database, mysql://user:password@host:3306/database or "
    "sqlite:///path/to/file.sqlite, with special characters of the password percent-encoded (@ is %40, / is %2F)."
)


# ── what a URL says ───────────────────────────────────────────────────────────────────────────


def parsed_url(text: str) -> URL:
    url = _url_or_none(text)
    # "p@ss" written as it is ends up in the host's name, and the host is named in messages.
    if url is None or (url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}"):
        raise InvalidInput("The database URL cannot be read.", remedy=URL_REMEDY)
    return url


def _url_or_none(text: str) -> URL | None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):  # their words quote parts of the URL
        return None
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def sqlite_path(url: URL, allowed_roots: Sequence[Path] | None) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise InvalidInput("The SQLite URL names no file.", remedy="Write it as sqlite:///path/to/file.sqlite.")
    path = Path(url.database).expanduser().resolve()
    if allowed_roots is not None and not any(path.is_relative_to(root.resolve()) for root in allowed_roots):
        raise NotAllowed(
            f"The database file {path} lies outside of the folders that sources may use.",
            remedy="Add its folder to ATTEST_ALLOWED_ROOTS.",
        )
    if not path.is_file():
        raise InvalidInput(f"There is no database file {path}.", remedy="Check the path in the database URL.")
    return path


# ── what must not be said


class Secrets:
    """What must not be said, in each spelling it may have: as typed, percent-encoded, as a driver quotes it."""

    __slots__ = ("passwords", "users")

    def __init__(self, passwords: Sequence[str], users: Sequence[str]) -> None:
        self.passwords = _spellings(passwords)
        self.users = _spellings(users)

    def redacted(self, text: str) -> str:
        """The text without user, password and address; nothing of it where the password is too short to be found."""
        if any(len(secret) < 3 for secret in self.passwords if secret):
            return ""
        text = re.sub(r"[\w+.-]+://\S+", "[address]", text)
        for secret in self.passwords:
            text = text.replace(secret, "***")
        for user in self.users:
            text = re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", "***", text)
        return text


def _spellings(words: Sequence[str]) -> list[str]:
    found = set()
    for word in words:
        forms = {word, unquote(word), quote(word), quote(word, safe=""), quote_plus(word), repr(word)[1:-1]}
        found |= forms | {form.replace("'", "''") for form in forms} | {form.lower() for form in forms}
    return sorted(found - {""}, key=len, reverse=True)


def secrets_of(url: URL) -> Secrets:
    in_query = [
        value
        for name, values in url.query.items()
        if re.search(r"pass|pwd|secret|token|key|user", name, re.IGNORECASE)
        for value in ([values] if isinstance(values, str) else values)
    ]
    return Secrets([str(url.password or ""), *in_query], [url.username or ""])

"""What is said in the headers of a request and read out of those of an answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime

from rag.errors import InvalidInput

_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "range"})
_READABLE_TYPES = frozenset(
    {
        "application/xhtml+xml",
        "application/xml",
        "application/json",
        "application/x-ndjson",
        "application/jsonl",
        "application/pdf",
        "application/x-pdf",
        "application/msword",
        "application/vnd.ms-excel",
        "application/vnd.ms-powerpoint",
        "application/csv",
    }
)
_READABLE_SUFFIXES = (".pdf", ".docx", ".pptx", ".xlsx", ".csv", ".json", ".jsonl", ".md", ".markdown", ".txt")


def readable(media_type: str | None, url: str) -> bool:
    """Whether a page of this type can be read at all; octet streams go by the end of their URL."""
    if media_type is None or media_type in _READABLE_TYPES:
        return True
    if media_type.startswith("text/"):
        return media_type not in ("text/css", "text/javascript", "text/calendar")
    if media_type.startswith(("application/vnd.openxmlformats-officedocument.", "application/vnd.oasis.opendocument.")):
        return True
    is_file = media_type in ("application/octet-stream", "binary/octet-stream", "application/force-download")
    return is_file and url.partition("?")[0].lower().endswith(_READABLE_SUFFIXES)


def header_texts(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name; repeated ones joined by commas."""
    texts: dict[str, str] = {}
    for name, value in headers:
        try:
            text = value.decode("utf-8")  # a Location with raw Chinese in it
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        key = name.decode("ascii", "replace").lower()
        texts[key] = f"{texts[key]}, {text}" if key in texts and key != "location" else text
    return texts


def checked_headers(headers: Mapping[str, str], cookies: Mapping[str, str]) -> dict[str, str]:
    """A source's own headers and cookies in one; InvalidInput where they could not be sent as they are."""
    checked = dict(headers)
    if cookies:
        checked["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    for name, value in checked.items():
        if not name or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise InvalidInput(f"{name!r} cannot be the name of a header.", remedy="Write it as `Accept-Language`.")
        if name.lower() in _OWN_HEADERS:
            raise InvalidInput(f"The header {name} is set by Attest itself.", remedy="Leave it out.")
        if not value.isascii() or not value.isprintable():  # the value stays out of the message: it may be a secret
            raise InvalidInput(f"The value of the header {name} has characters that a header cannot carry.")
    return checked


def conditions(etag: str | None, last_modified: str | None) -> dict[str, str]:
    """The headers that ask for a page only if it changed."""
    pairs = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    return {name: value for name, value in pairs.items() if value and value.isascii() and value.isprintable()}


def retry_after_seconds(text: str | None) -> float:
    """What a Retry-After header says, in seconds from now; 0 where it says nothing."""
    if not text:
        return 0.0
    if text.strip().isdecimal():
        return float(text)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0

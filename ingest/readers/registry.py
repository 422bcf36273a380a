"""The table of readers: which format bytes are in, and who reads it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import PurePosixPath

from ingest.readers.encoding import decode, looks_binary
from ingest.readers.options import ReadOptions
from ingest.readers.text import declared_charset
from rag.errors import DocumentError
from rag.models import Parsed


@dataclass(frozen=True, slots=True)
class Reader:
    """One format. `version` goes up whenever the same bytes come out differently: documents are then read again."""

    format: str
    version: int
    function: str  # "module:name", imported when it is first needed
    suffixes: tuple[str, ...]
    media_types: tuple[str, ...] = ()


_OFFICE = "application/vnd.openxmlformats-officedocument"
_READERS = (
    Reader("pdf", 1, "pdf:read_pdf", (".pdf",), ("application/pdf", "application/x-pdf")),
    Reader("html", 1, "html:read_html", (".html", ".htm", ".xhtml"), ("text/html", "application/xhtml+xml")),
    Reader(
        "markdown", 1, "markdown:read_markdown", (".md", ".markdown", ".mdown"), ("text/markdown", "text/x-markdown")
    ),
    Reader("text", 1, "text:read_text", (".txt", ".text", ".log", ".rst"), ("text/plain",)),
    Reader("docx", 2, "office:read_docx", (".docx",), (f"{_OFFICE}.wordprocessingml.document",)),
    Reader("pptx", 2, "slides:read_pptx", (".pptx", ".pptm"), (f"{_OFFICE}.presentationml.presentation",)),
    Reader("xlsx", 1, "tables:read_xlsx", (".xlsx", ".xlsm", ".xltx"), (f"{_OFFICE}.spreadsheetml.sheet",)),
    Reader("csv", 1, "tables:read_csv", (".csv", ".tsv", ".tab"), ("text/csv", "text/tab-separated-values")),
    Reader("json", 1, "records:read_json", (".json",), ("application/json", "application/ld+json")),
    Reader("jsonl", 1, "records:read_jsonl", (".jsonl", ".ndjson"), ("application/x-ndjson", "application/jsonl")),
)
_BY_FORMAT = {reader.format: reader for reader in _READERS}
_BY_SUFFIX = {suffix: reader.format for reader in _READERS for suffix in reader.suffixes}
_BY_MEDIA_TYPE = {media_type: reader.format for reader in _READERS for media_type in reader.media_types}
SUPPORTED_SUFFIXES: frozenset[str] = frozenset(_BY_SUFFIX)

_ZIPPED = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}
_UNZIPPED_BYTES_LIMIT = 1_000_000_000
_UNZIPPED_RATIO_LIMIT = 200
# Sheets of nothing but zeros shrink further than 200 times and harm nobody while they are small.
_RATIO_MATTERS_BYTES = 20_000_000
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML_START = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE | re.DOTALL
)
_XML_START = re.compile(r"\s*<\?xml\s")
_LEGACY = {".doc": ".docx", ".dot": ".docx", ".xls": ".xlsx", ".ppt": ".pptx", ".pps": ".pptx"}


def read(data: bytes, *, name: str, media_type: str | None, options: ReadOptions) -> Parsed:
    """What the reader for these bytes makes of them. Raises DocumentError when there is none, or it cannot."""
    reader = _BY_FORMAT[sniff(data, name=name, media_type=media_type)]
    if reader.format == "pdf":
        from ingest.readers.pdf import read_pdf

        return read_pdf(data, options=options)
    module, _, function = reader.function.partition(":")
    # An import by name keeps the table a table, and openpyxl out of the reading of a text file.
    read_format: Callable[..., Parsed] = getattr(import_module(f"ingest.readers.{module}"), function)
    return read_format(data, options=options, media_type=media_type)


def pipeline(data: bytes, *, name: str, media_type: str | None, options: ReadOptions) -> str:
    """Fingerprint of the reader that would read this; under another one, reading again may give another text."""
    reader = _BY_FORMAT[sniff(data, name=name, media_type=media_type)]
    if reader.format == "pdf":
        from ingest.readers.pdf import pipeline as pdf_pipeline

        return pdf_pipeline(options)
    return f"{reader.format}/{reader.version}"


def is_current(pipeline: str, options: ReadOptions) -> bool:
    """Whether what was read under this fingerprint would be read the same way today. Formats that have no reader here
    (rows come parsed) are left to their source."""
    reader = _BY_FORMAT.get(pipeline.partition("/")[0])
    if reader is None:
        return True
    if reader.format == "pdf":
        from ingest.readers.pdf import pipeline as pdf_pipeline

        return pipeline == pdf_pipeline(options)
    return pipeline == f"{reader.format}/{reader.version}"


def sniff(data: bytes, *, name: str, media_type: str | None) -> str:
    """The format: by the bytes where they are unmistakable, then by name, declared type, the look of the text."""
    suffix = PurePosixPath(name.replace("\\", "/")).suffix.lower()
    declared = _BY_MEDIA_TYPE.get((media_type or "").partition(";")[0].strip().lower())
    by_name = _BY_SUFFIX.get(suffix) or declared
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if data.startswith(b"PK\x03\x04") or (data.startswith(b"PK") and zipfile.is_zipfile(BytesIO(data))):
        return _inside_zip(data, name=name, by_name=by_name)
    if data.startswith(_OLE):
        raise _legacy_office(data, name=name, suffix=suffix)
    if data.startswith(b"{\\rtf"):
        raise _unsupported(f"{name} is an RTF document, which has no reader here.", "Save it as .docx or .txt.")
    start = decode(data[:4096], declared_charset(media_type))[0]
    if _HTML_START.match(start):
        return "html"
    if by_name in ("pdf", "docx", "pptx", "xlsx"):
        return by_name  # its reader says in which way this is not one
    if looks_binary(data):
        raise _unsupported(f"{name} is not text, and of no format that can be read here.")
    if _XML_START.match(start) and by_name != "html":
        raise _unsupported(f"{name} is XML, which has no reader here.", "Convert it to HTML, JSON or CSV.")
    return by_name or _by_look(start)


def _by_look(start: str) -> str:
    """Text without a telling name or type: JSON where it begins like JSON, else plain text."""
    if re.match(r'\s*\{\s*"[^"\n]*"\s*:.*\}\s*\n\s*\{\s*"', start):
        return "jsonl"
    return "json" if re.match(r'\s*(?:\{\s*"[^"]*"\s*:|\[\s*\{\s*")', start) else "text"


def _inside_zip(data: bytes, *, name: str, by_name: str | None) -> str:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        if by_name in _ZIPPED.values():
            detail = f"{name} is cut off or damaged: {error}."
            raise DocumentError("corrupt", detail, remedy="Get the file again from where it came.") from error
        raise _unsupported(f"{name} is a damaged archive.") from error
    unzipped = sum(member.file_size for member in members)
    bomb = unzipped > _RATIO_MATTERS_BYTES and unzipped > _UNZIPPED_RATIO_LIMIT * len(data)
    if unzipped > _UNZIPPED_BYTES_LIMIT or bomb:
        detail = f"{name} would unpack to {unzipped / 1e6:,.0f} MB from {len(data) / 1e6:,.1f} MB."
        raise DocumentError("too_large", detail, remedy="If it is a genuine document, split it into smaller ones.")
    for folder, kind in _ZIPPED.items():
        if any(member.filename.startswith(folder) for member in members):
            return kind
    raise _unsupported(f"{name} is an archive, not a document.", "Unpack it and add the files in it.")


def _legacy_office(data: bytes, *, name: str, suffix: str) -> DocumentError:
    if "EncryptedPackage".encode("utf-16-le") in data:
        remedy = "Save a copy without a password in Office and add that."
        return DocumentError("needs_password", f"{name} is encrypted with a password.", remedy=remedy)
    newer = _LEGACY.get(suffix, ".docx, .xlsx or .pptx")
    return _unsupported(f"{name} is in the old binary Office format.", f"Open it in Office and save it as {newer}.")


def _unsupported(detail: str, remedy: str = "") -> DocumentError:
    known = "Formats that can be read: PDF, HTML, Markdown, text, DOCX, PPTX, XLSX, CSV, JSON, JSONL."
    return DocumentError("unsupported", detail, remedy=remedy or known)

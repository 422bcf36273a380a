"""The table of readers: bytes decide, then the name, then what was declared."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from io import BytesIO

import pytest

from ingest.readers.options import ReadOptions
from ingest.readers.registry import SUPPORTED_SUFFIXES, pipeline, read, sniff
from rag.errors import DocumentError

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def zipped(*names: str, content: bytes = b"x", compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "media_type", "expected"),
    [
        (b"%PDF-1.7 ...", "a.txt", "text/plain", "pdf"),
        (b"\n\n%PDF-1.7 ...", "download", None, "pdf"),
        (b"<!DOCTYPE html><html>", "report.pdf", "application/pdf", "html"),
        (b"  <!-- note -->\n<HTML lang=en>", "a.md", None, "html"),
        ("<html>".encode("utf-16"), "page", None, "html"),
        (b'<?xml version="1.0"?><!DOCTYPE html><html>', "a", None, "html"),
        (b"# A", "a.md", "text/plain", "markdown"),
        (b"# A", "README", "text/markdown; charset=utf-8", "markdown"),
        (b"<div align=center>logo</div>\n# A", "README.md", None, "markdown"),
        (b"a,b\n1,2", "A.CSV", None, "csv"),
        (b"a\tb", "export", "text/tab-separated-values", "csv"),
        (b'{"a": 1}', "export", None, "json"),
        (b'{"a": 1}\n{"a": 2}', "export", None, "jsonl"),
        (b'{"a": 1}\n{"a": 2}', "a.jsonl", None, "jsonl"),
        (b'{"a": 1}', "a.txt", None, "text"),
        (b"words", "LICENSE", None, "text"),
        (b"words", "page.php", "text/html", "html"),
        ("第一条".encode("gb18030"), "无后缀", None, "text"),
        (zipped("word/document.xml"), "a.zip", None, "docx"),
        (zipped("ppt/presentation.xml"), "a.docx", None, "pptx"),
        (zipped("xl/workbook.xml"), "download", None, "xlsx"),
        (b"", "a.pdf", None, "pdf"),
        (b"no archive", "a.docx", None, "docx"),
    ],
)
def test_formats_are_told_apart(data: bytes, name: str, media_type: str | None, expected: str) -> None:
    assert sniff(data, name=name, media_type=media_type) == expected


@pytest.mark.parametrize(
    ("data", "name", "status"),
    [
        (os.urandom(4_000), "a.txt", "unsupported"),
        (os.urandom(4_000), "a.html", "unsupported"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "a.md", "unsupported"),
        (b"\x7fELF" + bytes(100), "program", "unsupported"),
        (b"{\\rtf1 words}", "a.txt", "unsupported"),
        (b'<?xml version="1.0"?><feed>words</feed>', "a.xml", "unsupported"),
        (zipped("notes.txt"), "a.zip", "unsupported"),
        (OLE + bytes(600), "a.doc", "unsupported"),
        (OLE + bytes(600) + "EncryptedPackage".encode("utf-16-le"), "a.docx", "needs_password"),
        (zipped("word/document.xml")[:-30], "a.docx", "corrupt"),
        (b"", "a.docx", "corrupt"),
        (b"junk", "a.xlsx", "corrupt"),
        (b"junk", "a.pptx", "corrupt"),
        (zipped("word/document.xml"), "a.docx", "corrupt"),
        (zipped("ppt/presentation.xml"), "a.pptx", "corrupt"),
        (zipped("xl/workbook.xml"), "a.xlsx", "corrupt"),
    ],
)
def test_what_cannot_be_read_says_in_which_way(data: bytes, name: str, status: str) -> None:
    with pytest.raises(DocumentError) as raised:
        read(data, name=name, media_type=None, options=ReadOptions())
    assert raised.value.status == status
    assert raised.value.remedy


def test_an_old_office_file_is_told_what_to_become() -> None:
    with pytest.raises(DocumentError, match=r"save it as \.xlsx"):
        sniff(OLE + bytes(600), name="a.xls", media_type=None)


def test_an_archive_that_would_unpack_without_end_is_not_opened() -> None:
    bomb = zipped("xl/workbook.xml", "xl/a.xml", content=bytes(15_000_000))
    with pytest.raises(DocumentError) as raised:
        read(bomb, name="a.xlsx", media_type=None, options=ReadOptions())
    assert raised.value.status == "too_large"


def test_an_empty_text_is_empty_and_not_an_error() -> None:
    for name in ("a.txt", "a.md", "a.html", "a.csv", "a.json", "a.jsonl", "no-suffix"):
        assert read(b"", name=name, media_type=None, options=ReadOptions()).status == "empty"


def test_the_fingerprint_names_the_reader() -> None:
    assert pipeline(b"<html>", name="a.pdf", media_type=None, options=ReadOptions()) == "html/1"
    assert pipeline(b"a,b", name="a.csv", media_type=None, options=ReadOptions()) == "csv/1"


def test_the_suffixes_are_those_that_people_have() -> None:
    assert {".pdf", ".html", ".htm", ".md", ".txt", ".docx", ".pptx", ".xlsx", ".csv", ".tsv"} <= SUPPORTED_SUFFIXES
    assert {".json", ".jsonl"} <= SUPPORTED_SUFFIXES


def test_reading_text_loads_no_library_of_another_format() -> None:
    program = (
        "import sys; from ingest.readers.registry import read; from ingest.readers.options import ReadOptions;"
        "read(b'words', name='a.txt', media_type=None, options=ReadOptions());"
        "heavy = {'lxml', 'docx', 'pptx', 'openpyxl', 'trafilatura', 'pypdf', 'markdown_it'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr

"""How quickly PDFs are read, and how well: PDFium first, as the reader does it, beside pypdf alone.

    python bench/pdf.py [FOLDER ...] [--reference] [--pages] [--json FILE]

Without folders: the PDFs of the sample corpus, and those of the evaluation pack at ATTEST_EVAL_DATA (`pdf`,
`financebench`).
Speed is pages per second of CPU, children included, each file read by both readers in turn. Words are compared with

- the text that the sample handbooks were printed from, in English and in Chinese,
- the answers and the evidence of the evaluation pack's questions, on the pages where they stand,
- with `--reference` a third extractor, pdfminer.six, where it is installed, on the first pages of each file: its words
  are nobody's truth, and take no side.

`--pages` lists the pages on which the two differ most from the reference. Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from ingest.readers import pdfium  # noqa: E402
from ingest.readers.options import ReadOptions  # noqa: E402
from ingest.readers.pdf import read_pdf  # noqa: E402
from rag.errors import DocumentError  # noqa: E402
from rag.models import Parsed  # noqa: E402

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")
_OPTIONS = ReadOptions(ocr=False, passwords=("test", "openpassword"))
_READERS = ("PDFium first", "pypdf alone")
_REFERENCE_PAGES = 8  # of each file; the reference is slow
Bag = Counter[str]


@dataclass
class Tally:
    """Words found, right and wanted."""

    right: int = 0
    found: int = 0
    wanted: int = 0

    def add(self, found: Bag, wanted: Bag) -> None:
        self.right += sum((found & wanted).values())
        self.found += sum(found.values())
        self.wanted += sum(wanted.values())

    @property
    def precision(self) -> float:
        return self.right / max(1, self.found)

    @property
    def recall(self) -> float:
        return self.right / max(1, self.wanted)


@dataclass
class Figures:
    pages: int = 0
    whole: float = 0.0  # CPU seconds of the reader
    bare: float = 0.0  # and of the text alone
    by_pypdf: int = 0
    failed: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--reference", action="store_true", help="compare with pdfminer.six too")
    parser.add_argument("--pages", action="store_true", help="list the pages that differ most from the reference")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    given = parser.parse_args()
    pack = os.environ.get("ATTEST_EVAL_DATA")
    folders = given.folders or [
        ROOT / "data" / "corpus",
        *([Path(pack) / "pdf", Path(pack) / "financebench"] if pack else []),
    ]
    paths = sorted(path for folder in folders for path in folder.rglob("*.pdf"))
    if not paths:
        parser.error("There are no PDFs in these folders.")
    for name in _READERS:  # what is imported once counts for nobody
        _read(paths[0], name)
    readings = {path: {name: _read(path, name) for name in _READERS} for path in paths}
    bare = {path: {name: _bare(path, name) for name in _READERS} for path in paths if readings[path][_READERS[1]][0]}
    report = {"speed": _speed(readings, bare), "gold": _gold(readings, Path(pack) if pack else None)}
    if given.reference:
        report["reference"] = _reference(bare, list_pages=given.pages)
    if given.json:
        given.json.write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")
    sys.stdout.write(_markdown(report))


# ── reading ───────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _without_pdfium() -> Iterator[None]:
    load, pdfium.load = pdfium.load, lambda: False
    try:
        yield
    finally:
        pdfium.load = load


def _read(path: Path, reader: str) -> tuple[Parsed | None, float]:
    """What the reader makes of a file, None where it refuses, and its CPU seconds."""
    data = path.read_bytes()
    started = _cpu()
    try:
        if reader == _READERS[0]:
            parsed = read_pdf(data, options=_OPTIONS)
        else:
            with _without_pdfium():
                parsed = read_pdf(data, options=_OPTIONS)
    except DocumentError:
        return None, _cpu() - started
    return parsed, _cpu() - started


def _cpu() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _bare(path: Path, reader: str) -> tuple[list[str], float]:
    """The text of every page as the library gives it, and the CPU seconds that took."""
    data = path.read_bytes()
    started = _cpu()
    texts = _pdfium_texts(data) if reader == _READERS[0] else _pypdf_texts(data)
    return texts, _cpu() - started


def _pdfium_texts(data: bytes) -> list[str]:
    import pypdfium2

    document = pypdfium2.PdfDocument(data, password=_password(data))
    texts = []
    for page in document:
        text_page = page.get_textpage()
        texts.append(text_page.get_text_range().replace("\ufffe", "-").replace("\x02", "-"))
        text_page.close()
        page.close()
    document.close()
    return texts


def _pypdf_texts(data: bytes) -> list[str]:
    from pypdf import PdfReader

    reader = PdfReader(BytesIO(data))
    if reader.is_encrypted:
        reader.decrypt(_password(data) or "")
    return [page.extract_text() for page in reader.pages]


def _password(data: bytes) -> str | None:
    import pypdfium2

    for password in (None, *_OPTIONS.passwords):
        try:
            pypdfium2.PdfDocument(data, password=password).close()
        except pypdfium2.PdfiumError:
            continue
        return password
    return None


# ── speed ─────────────────────────────────────────────────────────────────────────────────────


def _speed(
    readings: dict[Path, dict[str, tuple[Parsed | None, float]]], bare: dict[Path, dict[str, tuple[list[str], float]]]
) -> dict[str, Any]:
    figures = {name: Figures() for name in _READERS}
    statuses: dict[str, list[str]] = {}
    for path in readings:
        for name in _READERS:
            parsed, seconds = readings[path][name]
            if parsed is None:
                continue
            figure = figures[name]
            figure.pages += len(parsed.pages)
            figure.whole += seconds
            figure.bare += bare[path][name][1] if path in bare else 0.0
            figure.by_pypdf += sum(_pages_in(problem.detail) for problem in parsed.problems if problem.code == "reader")
        outcome = [parsed.status if parsed else "refused" for parsed, _ in readings[path].values()]
        if len(set(outcome)) > 1:
            statuses[path.name] = outcome
    return {
        "readers": {
            name: {
                "pages": figure.pages,
                "pages by pypdf": figure.by_pypdf,
                "whole reader, pages per CPU-s": round(figure.pages / figure.whole, 1),
                "text alone, pages per CPU-s": round(figure.pages / figure.bare, 1),
            }
            for name, figure in figures.items()
        },
        "other status": statuses,
    }


def _pages_in(detail: str) -> int:
    """How many pages "… pages 1-3, 7." names."""
    spans = re.findall(r"(\d+)(?:-(\d+))?", detail.rpartition("page")[2])
    return sum(int(last or first) - int(first) + 1 for first, last in spans)


# ── words ─────────────────────────────────────────────────────────────────────────────────────


def _bag(text: str) -> Bag:
    return Counter(word.lower() for word in _WORD.findall(text))


def _gold(
    readings: dict[Path, dict[str, tuple[Parsed | None, float]]], pack: Path | None
) -> dict[str, dict[str, list[float]]]:
    """What is compared → reader → [precision, recall]; of answers and evidence only recall means something."""
    found: dict[str, dict[str, Tally]] = defaultdict(lambda: {name: Tally() for name in _READERS})
    by_name = {path.name: readings[path] for path in readings}
    for name in ("handbook-en", "handbook-zh"):
        reading = by_name.get(f"{name}.pdf")
        if reading is None:
            continue
        source = (ROOT / "data" / "source" / f"{name}.md").read_text("utf-8").split("---\n", 2)[2]
        wanted = _bag(re.sub(r"<!--.*?-->", " ", source))
        for reader, (parsed, _) in reading.items():
            assert parsed is not None, f"{name}.pdf of the sample corpus is whole"
            body = parsed.text[_body_start(parsed, source) :]
            found[f"handbook, {name[-2:]}"][reader].add(_bag(body), wanted)
    for record in _questions(pack):
        wanted = _bag(" ".join([*record.get("evidence", []), *record["answers"][:1]]))
        kind = "evidence on its page" if record.get("evidence") else "answer on its page"
        readings_of = [by_name.get(gold["pdf"]) for gold in record["gold_pages"]]
        if not all(readings_of):
            continue
        for reader in _READERS:
            text = " ".join(
                _page(reading[reader][0], gold["page"])
                for reading, gold in zip(readings_of, record["gold_pages"], strict=True)
                if reading
            )
            found[f"{kind}, {record['lang']}"][reader].add(_bag(text), wanted)
    return {
        what: {reader: [round(tally.precision, 4), round(tally.recall, 4)] for reader, tally in by_reader.items()}
        for what, by_reader in found.items()
    }


def _body_start(parsed: Parsed, source: str) -> int:
    """Where the handbook's own text begins, behind its cover and its printed contents."""
    first = re.sub(r"^#+\s*", "", next(line for line in source.splitlines() if line.startswith("#")))
    return max(0, parsed.text.find(first))


def _questions(pack: Path | None) -> Iterator[dict[str, Any]]:
    for name in ("pdf", "financebench"):
        path = pack / name / "queries.jsonl" if pack else None
        if path is None or not path.exists():
            continue
        for row in path.read_text("utf-8").splitlines():
            record = json.loads(row)
            if record.get("gold_pages") and record.get("needs") != "ocr" and record["answerable"]:
                yield record


def _page(parsed: Parsed | None, number: int) -> str:
    if parsed is None or number > len(parsed.pages):
        return ""
    place = parsed.pages[number - 1]
    return parsed.text[place.start : place.end]


def _reference(bare: dict[Path, dict[str, tuple[list[str], float]]], *, list_pages: bool) -> dict[str, Any]:
    """Words of the bare texts against pdfminer's, by language and by half of the files."""
    found: dict[str, dict[str, Tally]] = defaultdict(lambda: {name: Tally() for name in _READERS})
    differing = []
    for path, texts in bare.items():
        half = "first" if hashlib.sha256(path.name.encode()).digest()[0] % 2 else "second"
        for number, reference in enumerate(_reference_texts(path)):
            wanted = _bag(reference)
            if not wanted:
                continue
            chinese = sum(len(word) == 1 and word >= "\u3400" for word in wanted) * 2 > len(wanted)
            scores = []
            for reader in _READERS:
                tally = Tally()
                words = _bag(texts[reader][0][number])
                tally.add(words, wanted)
                found[f"{'zh' if chinese else 'en'}, {half} half"][reader].add(words, wanted)
                scores.append(2 * tally.right / max(1, tally.found + tally.wanted))
            differing.append((round(scores[0] - scores[1], 3), path.name, number + 1))
    result: dict[str, Any] = {
        what: {reader: [round(tally.precision, 4), round(tally.recall, 4)] for reader, tally in by_reader.items()}
        for what, by_reader in found.items()
    }
    if list_pages:
        differing.sort()
        result["pages"] = [list(row) for row in differing[:12] + differing[-12:]]
    return result


def _reference_texts(path: Path) -> list[str]:
    from pdfminer.high_level import extract_pages
    from pdfminer.layout import LTTextContainer

    pages = extract_pages(path, password=_password(path.read_bytes()) or "", maxpages=_REFERENCE_PAGES)
    return ["".join(box.get_text() for box in page if isinstance(box, LTTextContainer)) for page in pages]


# ── the report ────────────────────────────────────────────────────────────────────────────────


def _markdown(report: dict[str, Any]) -> str:
    readers = report["speed"]["readers"]
    rows = [["", *_READERS], ["---", "---:", "---:"]]
    rows += [[what, *(str(readers[name][what]) for name in _READERS)] for what in readers[_READERS[0]]]
    for table in ("gold", "reference"):
        for what, by_reader in report.get(table, {}).items():
            if what != "pages":
                figures = ["{:.4f}, {:.4f}".format(*by_reader[name]) for name in _READERS]
                rows.append([f"{what}: precision, recall", *figures])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += [f"\nOther status: {report['speed']['other status']}"] if report["speed"]["other status"] else []
    lines += [str(row) for row in report.get("reference", {}).get("pages", [])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

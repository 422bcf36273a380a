"""The door to Tantivy: BM25 over `rag.text.language.terms`, one folder per space."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.disk import says_when_full, sync_folder
from rag.errors import InvalidInput, Unavailable
from rag.ports import TermEntry, TermSearch
from rag.text.language import is_han, language_of, query_terms, terms

if TYPE_CHECKING:
    from tantivy import Index, IndexWriter, Query, Schema

# Part of every marker: a change in the fields below or in `language.terms` raises it, and old folders are rebuilt.
FORMAT = 4
# A heading is short, so BM25 counts a word in it for much already. With 1.5, in a collection of eight datasets, the
# titles of other documents won: hit@1 of the terms alone was .75 on SQuAD (now .85) and .86 on Chinese XQuAD (.89).
HEADING_BOOST = 0.5
CODE_BOOST = 3.0
# A Han character gives two terms, itself and the pair that it begins, and a word one. Fillers make a passage of words
# as long as one of characters that says as much (200 tokens are about 150 words, or 400 terms), or else BM25 takes
# Chinese passages for long ones wherever English ones are.
_FILLERS = 1.5  # for each term without Han
_FILLER = "="  # no term begins like this
_LANGUAGES = {"en": "=en", "zh": "=zh"}  # a term of every passage, by which those of a language can be counted
MOST_QUERY_TERMS = 512  # of a question that is a pasted document; the first ones count

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_CONNECTOR = re.compile(r"[-._/@:+]")
_SEGMENT_FILES = frozenset({".del", ".fast", ".fieldnorm", ".idx", ".pos", ".store", ".term"})
_FOOTER_MAGIC = 1337
_WRITER_HEAP_BYTES = 30_000_000
_FRESH = "-new"  # behind the name of a space that is being rebuilt
_REBUILD_BATCH = 20_000  # entries in memory at once
# A kept writer commits a small change in 1 ms, a fresh one in 9 ms; each may hold its heap.
_KEPT_WRITERS = 4


def inverse_document_frequency(documents: int, having: float) -> float:
    """BM25's, which is never negative."""
    return math.log(1 + (documents - having + 0.5) / (having + 0.5))


@dataclass(frozen=True, slots=True)
class _Search:
    """A TermSearch over whatever was committed last."""

    index: Index
    schema: Schema

    def search(self, question: str, *, k: int, among: Sequence[int] | None = None) -> list[tuple[int, float]]:
        wanted = query_terms(question)[:MOST_QUERY_TERMS]
        if not wanted or k < 1 or (among is not None and not len(among)):
            return []
        with _rust():
            searcher = self.index.searcher()
            highest = inverse_document_frequency(searcher.num_docs, 0)

            def rarity(term: str) -> float:
                having = min(searcher.doc_freq("body", term), searcher.num_docs)
                return inverse_document_frequency(searcher.num_docs, having) / highest

            weights = _weighed(wanted, rarity)
            own = min(searcher.doc_freq("body", _LANGUAGES[language_of(question)]), searcher.num_docs)
            for term in weights if own else ():
                having = min(searcher.doc_freq("body", term), searcher.num_docs)
                weights[term] *= _rarer(term, having, own=own, total=searcher.num_docs)
            query = _any_term(self.schema, weights)
            if among is not None:
                query = _only(query, _any_key(self.schema, list(among)))
            found = searcher.search(query, k, count=False).hits
            keys = searcher.fast_field_values("key", [address for _, address in found])
        return [(int(key), float(score)) for key, (score, _) in zip(keys, found, strict=True)]

    def rarity(self, terms: Sequence[str]) -> list[float]:
        with _rust():
            searcher = self.index.searcher()
            total = searcher.num_docs
            # A term may stand in the heading alone. The two fields' documents overlap: the larger count is the floor.
            counts = [max(searcher.doc_freq("heading", term), searcher.doc_freq("body", term)) for term in terms]
        return [inverse_document_frequency(total, min(count, total)) for count in counts]


@dataclass(frozen=True, slots=True)
class _Space(_Search):
    folder: Path
    catalog_id: str


class TantivyIndex:
    """A TermIndex under `path`. One process at a time may write there."""

    def __init__(self, *, path: Path) -> None:
        self._path = path
        self._spaces: dict[str, _Space] = {}
        self._writers: OrderedDict[str, IndexWriter] = OrderedDict()
        self._writing = threading.RLock()
        self._prepared: dict[TermEntry, tuple[str, str]] = {}

    def open(self, space: str, *, catalog_id: str) -> int | None:
        folder = self._folder(space)
        with self._writing:
            self._forget(space)
            marker = _read_marker(folder)
            if marker is None or marker.get("catalog_id") != catalog_id or marker.get("format") != FORMAT:
                return None
            try:
                with _rust():
                    opened = self._open_index(folder, catalog_id, create=False)
                    self._spaces[space] = opened
                    self.keys(space)
                if not all(map(_is_whole, (folder / "index").iterdir())):
                    raise Unavailable(f"The terms of {space} have changed on the disk.")
            except Unavailable:
                self._forget(space)
                return None  # broken files are rebuilt from the catalog like missing ones
            seen = marker.get("seen")
            return seen if isinstance(seen, int) else None

    def prepare(self, entries: Sequence[TermEntry]) -> None:
        # Taking terms out of text is four fifths of a commit (12,000 chunks: 2.7 of 3.4 s).
        self._prepared = {entry: _analysed(entry) for entry in entries}

    def apply(self, space: str, *, remove: Sequence[int], add: Sequence[TermEntry], seen: int) -> None:
        with self._writing:
            opened = self._opened(space)
            # Before the commit: after a crash the marker may admit a change that is not here (the catalog redoes what
            # is pending), but nothing is here that it does not admit.
            _write_marker(opened.folder, catalog_id=opened.catalog_id, seen=seen)
            entries = {entry.key: entry for entry in add}
            gone = list({*remove, *entries})
            try:
                with _rust():
                    writer = self._writer(space, opened)
                    if gone:
                        writer.delete_documents_by_query(_any_key(opened.schema, gone))
                    for entry in entries.values():
                        writer.add_document(_document(entry.key, self._prepared.get(entry) or _analysed(entry)))
                    writer.commit()
                    opened.index.reload()
                    self._prepared = {}
            except Unavailable:
                self._drop_writer(space)  # what it holds uncommitted goes with it
                raise

    def search(
        self, space: str, question: str, *, k: int, among: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        return self._opened(space).search(question, k=k, among=among)

    def rarity(self, space: str, terms: Sequence[str]) -> list[float]:
        return self._opened(space).rarity(terms)

    def occasion(self, entries: Iterable[TermEntry]) -> TermSearch:
        import tantivy

        schema = _schema()
        with _rust():
            index = tantivy.Index(schema)  # in memory
            index.config_reader(reload_policy="manual")
            writer = index.writer(_WRITER_HEAP_BYTES, 1)
            for entry in {entry.key: entry for entry in entries}.values():
                writer.add_document(_document(entry.key, _analysed(entry)))
            writer.commit()
            writer.wait_merging_threads()
            index.reload()
        return _Search(index, schema)

    def spaces(self) -> set[str]:
        if not self._path.is_dir():
            return set()
        return {folder.name for folder in self._path.iterdir() if folder.is_dir() and _NAME.fullmatch(folder.name)}

    def keys(self, space: str) -> set[int]:
        with _rust():
            searcher = self._opened(space).index.searcher()
            found = searcher.search(_all(), max(1, searcher.num_docs), count=False).hits
            return {int(key) for key in searcher.fast_field_values("key", [address for _, address in found])}

    def count(self, space: str) -> int:
        with _rust():
            return int(self._opened(space).index.searcher().num_docs)

    def seen(self, space: str) -> int | None:
        seen = (_read_marker(self._opened(space).folder) or {}).get("seen")
        return seen if isinstance(seen, int) else None

    def reset(self, space: str, *, catalog_id: str) -> None:
        with self._writing:
            self.drop(space)
            folder = self._folder(space)
            with _rust():
                self._spaces[space] = self._open_index(folder, catalog_id, create=True)
            _write_marker(folder, catalog_id=catalog_id, seen=0)

    def rebuild(self, space: str, entries: Iterable[TermEntry], *, catalog_id: str, seen: int) -> None:
        fresh = f"{space}{_FRESH}"
        with self._writing:
            self.reset(fresh, catalog_id=catalog_id)
            batches = iter(entries)
            while batch := list(islice(batches, _REBUILD_BATCH)):
                self.apply(fresh, remove=[], add=batch, seen=seen)
            _write_marker(self._folder(fresh), catalog_id=catalog_id, seen=seen)
            self._forget(fresh)
            self._drop_writer(space)
            # Whoever searches the old space goes on with it: its files live until the last reader lets go of them.
            (self._folder(space) / "marker.json").unlink(missing_ok=True)
            shutil.rmtree(self._folder(space), ignore_errors=True)
            self._folder(fresh).rename(self._folder(space))
            with _rust():
                self._spaces[space] = self._open_index(self._folder(space), catalog_id, create=False)

    def drop(self, space: str) -> None:
        with self._writing:
            self._forget(space)
            folder = self._folder(space)
            (folder / "marker.json").unlink(missing_ok=True)  # first: half a folder must not look whole
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        with self._writing:
            for space in list(self._spaces):
                self._forget(space)

    def _folder(self, space: str) -> Path:
        if not _NAME.fullmatch(space):
            raise InvalidInput(f"{space!r} cannot name a folder of terms.", remedy="Use the collection's id.")
        return self._path / space

    def _opened(self, space: str) -> _Space:
        opened = self._spaces.get(space)
        if opened is None:
            raise Unavailable(f"The terms of {space} are not open.", remedy="They are rebuilt when the service starts.")
        return opened

    def _open_index(self, folder: Path, catalog_id: str, *, create: bool) -> _Space:
        import tantivy

        path, schema = folder / "index", _schema()
        if create:
            path.mkdir(parents=True)
        index = tantivy.Index(schema, path=str(path)) if create else tantivy.Index.open(str(path))
        index.config_reader(reload_policy="manual")  # `apply` reloads itself; no watching thread per collection
        writer = index.writer(_WRITER_HEAP_BYTES, 1)
        writer.garbage_collect_files()  # a killed process leaves files that no commit names
        writer.wait_merging_threads()
        return _Space(index, schema, folder, catalog_id)

    def _writer(self, space: str, opened: _Space) -> IndexWriter:
        writer = self._writers.pop(space, None) or opened.index.writer(_WRITER_HEAP_BYTES, 1)
        self._writers[space] = writer
        while len(self._writers) > _KEPT_WRITERS:
            self._drop_writer(next(iter(self._writers)))
        return writer

    def _drop_writer(self, space: str) -> None:
        writer = self._writers.pop(space, None)
        if writer is not None:
            with _rust():
                writer.wait_merging_threads()

    def _forget(self, space: str) -> None:
        self._drop_writer(space)
        self._spaces.pop(space, None)


@contextmanager
def _rust() -> Iterator[None]:
    """Tantivy's errors as ours. It raises ValueError for everything, and a panic as a BaseException of its own."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise Unavailable(
            f"The term index failed: {error}.", remedy="It is rebuilt when the service starts."
        ) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise Unavailable(f"The term index broke: {error}.", remedy="It is rebuilt when the service starts.") from error


def _schema() -> Schema:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("key", indexed=True, fast=True)
    for field in ("heading", "body"):
        builder.add_text_field(field, tokenizer_name="whitespace", index_option="freq")
    return builder.build()


def _analysed(entry: TermEntry) -> tuple[str, str]:
    """Heading and text as their terms, joined by spaces."""
    return _filled(terms(entry.heading)), f"{_filled(terms(entry.text))} {_LANGUAGES[language_of(entry.text)]}"


def _filled(found: list[str]) -> str:
    words = sum(not _has_han(term) for term in found)
    return " ".join([*found, *[_FILLER] * round(_FILLERS * words)])


def _has_han(term: str) -> bool:
    return not term.isascii() and (is_han(term[0]) or is_han(term[-1]))  # 夜班, 30天, 第12条


def _document(key: int, analysed: tuple[str, str]) -> Any:
    import tantivy

    document = tantivy.Document()
    document.add_unsigned("key", key)  # Document(key=…) would make it signed, and the write fail later
    document.add_text("heading", analysed[0])
    document.add_text("body", analysed[1])
    return document


def _any_key(schema: Schema, keys: list[int]) -> Query:
    # delete_documents_by_term takes an integer for a signed one and then deletes nothing (tantivy 0.27).
    import tantivy

    return tantivy.Query.term_set_query(schema, "key", keys)


def _only(query: Query, allowed: Query) -> Query:
    """What matches both, scored as by the first alone. 100,000 chunks: 3 ms for 10 keys, 66 for 20,000."""
    import tantivy

    must = tantivy.Occur.Must
    return tantivy.Query.boolean_query([(must, query), (must, tantivy.Query.const_score_query(allowed, 0.0))])


def _any_term(schema: Schema, wanted: Mapping[str, float]) -> Query:
    """Passages with any of these terms, each counting for so much."""
    import tantivy

    query, should = tantivy.Query, tantivy.Occur.Should
    parts = [
        query.boost_query(query.term_query(schema, field, term, "freq"), boost * weight)
        for field, boost in (("heading", HEADING_BOOST), ("body", 1.0))
        for term, weight in wanted.items()
    ]
    return query.boolean_query([(should, part) for part in parts])


def _weighed(wanted: list[str], rarity: Callable[[str], float]) -> dict[str, float]:
    """Each term with its weight. `rarity` is 0 for a term that every document has and 1 for one that none has.

    A code that is known whole stands for its parts (`tl`, `1422` and `tl1422` beside `tl-1422` would count it four
    times), and the rarer it is, the surer it is what the question is about: E-07 more than the product that shows it.
    """
    whole = [term for term in wanted if _is_code(term) and _CONNECTOR.search(term) and rarity(term) < 1.0]
    parts = {part for term in whole for part in (*_CONNECTOR.split(term), _CONNECTOR.sub("", term))}
    parts |= {part.lstrip("0") for part in parts}
    kept = [term for term in wanted if term not in parts]
    return {term: max(1.0, CODE_BOOST * rarity(term)) if _is_code(term) else 1.0 for term in kept}


def _is_code(term: str) -> bool:
    """A-1207, v2.3.1, 第12条: what somebody who types it means exactly."""
    return any(map(str.isdigit, term)) and not term.isdigit()


def _rarer(term: str, having: int, *, own: int, total: int) -> float:
    """What a term's weight must be multiplied by to be as rare as it is among the passages in the question's language,
    of which there are `own`: 的 is rare among English ones, and tells nothing. XQuAD zh beside 3,547 English documents:
    hit@1 .922 before this and the fillers, .942 with them, .952 without the English documents (n = 400)."""
    # Of the other language's terms, and of figures, nobody has counted where they stand: they are taken to be spread.
    among_own = min(having, own) if term.isalpha() else having * own / total
    return inverse_document_frequency(own, among_own) / inverse_document_frequency(total, having)


def _all() -> Query:
    import tantivy

    return tantivy.Query.all_query()


def _is_whole(file: Path) -> bool:
    """Whether a file of a segment is as Tantivy wrote it. It ends in {"crc": …}, the length of that and a number, and
    Tantivy does not look at them by itself: a bit that flipped would silently find other things."""
    if file.suffix not in _SEGMENT_FILES:
        return True
    try:
        data = file.read_bytes()
        length, magic = struct.unpack("<II", data[-8:])
        footer = json.loads(data[-8 - length : -8])
        return bool(magic == _FOOTER_MAGIC and footer["crc"] == zlib.crc32(memoryview(data)[: -8 - length]))
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return False


def _read_marker(folder: Path) -> dict[str, Any] | None:
    try:
        marker = json.loads((folder / "marker.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def _write_marker(folder: Path, *, catalog_id: str, seen: int) -> None:
    temporary = folder / "marker.json.new"
    with says_when_full(folder):
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"catalog_id": catalog_id, "format": FORMAT, "seen": seen}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / "marker.json")
        sync_folder(folder)

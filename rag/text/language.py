"""How text becomes canonical, how Chinese and English become terms, and where sentences end."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from operator import add
from pathlib import Path
from typing import Literal

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")

HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f\U00030000-\U000323af"
_HAN_CHARACTER = re.compile(f"[{HAN}]")


def canonical(text: str) -> str:
    """Line ends as `\\n`; NUL and lone surrogates as U+FFFD; otherwise unchanged. Offsets count in this form."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd")
    return _LONE_SURROGATES.sub("\ufffd", text)


def is_han(character: str) -> bool:
    return _HAN_CHARACTER.match(character) is not None


# ── terms ─────────────────────────────────────────────────────────────────────────────────────


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


LONGEST_TERM = 64  # characters; longer ones are encoded data rather than words

_UNSPACED = "\u3040-\u30ff\u31f0-\u31ff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # kana, Thai, Lao, Burmese, Khmer
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
# Vowel signs and accents belong to their word, but Python's \w leaves most of them out.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u0900-\u0963\u0966-\u0dff\u0f18-\u0fbc"
)
_OTHER = f"(?![{HAN}{_UNSPACED}{_HANGUL}])"
_WORD = rf"{_OTHER}[^\W_](?:{_OTHER}[\w{_MARKS}])*"
_RUN = re.compile(
    rf"(?P<han>[{HAN}]+)"
    rf"|(?P<unspaced>[{_UNSPACED}]+)"
    rf"|(?P<hangul>[{_HANGUL}]+)"
    rf"|(?P<word>{_WORD}(?:[-._@/:+&#'\u2010\u2011]{_WORD})*(?:\+\+|\#(?!\w))?)"
)
_CLAUSE = re.compile(r"第\s?(\d{1,6}|[〇零一二三四五六七八九十百千两]{1,9})\s?([条章节款项编部页期届次卷回])")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_GROUPED = re.compile(r",\d{3}")  # said first, for most texts have none
_INVISIBLE: dict[int, None] = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff\u0640"))
_CONNECTORS = re.compile(r"[^\w" + _MARKS + r"]+|_+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DECADE = re.compile(r"(?:1\d|20)\d0s")
_HUMP = re.compile(r"(?<=[a-z]{2})(?=[A-Z][a-z])")
_QUOTES = str.maketrans("’‘ʼ", "'''")

ENGLISH_STOP_WORDS = _words(
    """a about above after again all also am an and any are as at be because been before being below between both
    but by can could did do does doing down during each few for from further had has have having he her here
    hers him his how i if in into is it its itself just let many me more most much must my no nor not of off on
    once only or other our ours out over own please same shall she should so some such tell than that the their
    theirs them then there these they this those through to too under until up us very was we were what when
    where which while who whom whose why will with would you your yours"""
)
CHINESE_FUNCTION_CHARACTERS = frozenset(
    "的了是在和与及或有吗呢吧啊呀么之其于也都就而被把给让请问谁哪几这那您你我他她它们"
)
HOW_MUCH = r"\bhow\s+(?:long|many|much|often|far|old|big|large|soon|quickly|high)\b"  # to be matched in any case
# Words that ask. Whole words only: 多 and 少, 什 and 么 are dropped with them, elsewhere they may carry meaning.
_ASKING = re.compile(
    "请问|请告诉我|告诉我|为什么|为何|什么时候|什么样|什么|多少钱|多少|怎么样|怎么办|怎么|怎样|如何|"
    "哪些|哪一个|哪个|哪里|哪儿|哪一|是否|有没有|是不是|能不能|可不可以|由谁|是谁|谁|哪位|哪家|哪天|哪年|哪种|"
    "多久|多长时间|多长|多大|多高|多远|几(?=[天个年月次点号位种周条项名人台])|[吗呢吧啊呀]"
    rf"|{HOW_MUCH}",
    re.IGNORECASE,
)
# 的 and 了 glue words together, but not in these.
_GLUE, _NOT_GLUE = frozenset("的了"), frozenset(["目的", "的确", "标的", "的士", "了解", "为了", "除了", "了结"])


def terms(text: str) -> list[str]:
    """What a text is found by: stemmed words, numbers, codes whole and in parts, Han characters and their pairs.

    Traditional and simplified Chinese, full and half width, upper and lower case give the same terms.
    """
    folded = _folded(text)
    if _HAN_CHARACTER.search(folded) is not None:
        found = _terms_of_runs(folded)
        return found + _clauses(folded) if "第" in folded else found
    # Without Han nothing reaches over white space, and nearly every piece was there before: 4 times as quick.
    return [
        term
        for piece in folded.split()
        for term in (_piece_terms(piece) if len(piece) <= LONGEST_TERM else _terms_of_runs(piece))
    ]


def query_terms(text: str) -> list[str]:
    """The terms a question looks for, each once; without the words that only ask, unless there are no others."""
    folded = _folded(text)
    found = [
        term[:LONGEST_TERM]
        for match in _RUN.finditer(_ASKING.sub(" ", folded))
        for term in _terms_of(match)
        if not _is_glue(term) and not _is_stop_word(match["word"] or "", shouted=folded.isupper())
    ]
    return list(dict.fromkeys(found + _clauses(folded) or terms(text)))


def simplified(text: str) -> str:
    """Chinese in simplified characters, one for one; everything else as it was."""
    return text if text.isascii() else text.translate(_simplified_characters())


def language_of(text: str) -> Literal["zh", "en"]:
    """Chinese where its words outnumber the others, or where the little grammar that there is is Chinese."""
    han = len(_HAN_CHARACTER.findall(text))
    if not han:
        return "en"
    words = re.findall(r"[^\W\d_]+", _HAN_CHARACTER.sub(" ", text))
    if not any(word.lower() in ENGLISH_STOP_WORDS for word in words):
        # "什么是 retrieval augmented generation" is a Chinese question; a page of English names with one Han is not.
        return "zh" if han * 20 >= sum(map(len, words)) else "en"
    return "zh" if han / 2 > len(words) else "en"  # a Chinese word has about two characters


def _folded(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_folded_characters())
    if _GROUPED.search(text) is None:
        return text
    return _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)


@lru_cache(maxsize=1)
def _folded_characters() -> Mapping[int, int | str | None]:
    return {**_simplified_characters(), **_INVISIBLE, **_QUOTES}


@lru_cache(maxsize=1)
def _simplified_characters() -> dict[int, str]:
    # OpenCC's convert() works phrase by phrase and is slow; for matching, characters are enough. Its table read once
    # into str.translate folds the same text some hundred times faster.
    spec = find_spec("opencc")
    assert spec is not None
    assert spec.origin is not None
    table: dict[str, str] = {}
    for line in (Path(spec.origin).parent / "dictionary" / "TSCharacters.txt").read_text("utf-8").splitlines():
        source, _, targets = line.strip().partition("\t")
        if targets:
            table[source] = targets.split()[0]
    for source, target in table.items():  # a few targets are sources themselves: folding twice must change nothing
        seen = {source}
        while target in table and target not in seen:
            seen.add(target)
            target = table[target]
        table[source] = target
    return {ord(source): target for source, target in table.items() if len(source) == 1 and source != target}


def _terms_of_runs(folded: str) -> list[str]:
    found: list[str] = []
    for match in _RUN.finditer(folded):
        if match.lastgroup == "han":  # most of them by far, and none of their terms is long
            found += _han_terms(match)
        else:
            found += [term[:LONGEST_TERM] for term in _terms_of(match)]
    return found


@lru_cache(maxsize=1 << 15)
def _piece_terms(piece: str) -> tuple[str, ...]:
    return tuple(_terms_of_runs(piece))


def _terms_of(match: re.Match[str]) -> Iterable[str]:
    run = match[0]
    match match.lastgroup:
        case "han":
            return _han_terms(match)
        case "unspaced":
            return _pairs(run) if len(run) > 1 else [run]
        case "hangul":
            return [run, *(_pairs(run) if len(run) > 2 else ())]
        case _:
            # Encoded data is no word, and would only push words out.
            return _word_terms(run) if len(run) <= LONGEST_TERM else _terms_of_word(run)


def _han_terms(match: re.Match[str]) -> list[str]:
    run, before = match[0], match.string[match.start() - 1 : match.start()]
    if (before == " " or before.isdigit()) and (number := _digits_before(match)):
        return [(number + run[0])[:LONGEST_TERM], *run, *_pairs(run)]  # 30天 is not 30元
    return [*run, *_pairs(run)]


def _pairs(run: str) -> list[str]:
    return list(map(add, run, run[1:]))


def _digits_before(match: re.Match[str]) -> str:
    end = match.start() - match.string.startswith(" ", match.start() - 1)  # 30 天, as typographers set it
    start = end
    while start and match.string[start - 1].isdigit():
        start -= 1
    return match.string[start:end].lstrip("0")


_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000}


def _clauses(folded: str) -> list[str]:
    """第十二条 and 第12条 are one clause."""
    found = []
    for number, unit in _CLAUSE.findall(folded):
        value = int(number) if number.isdigit() else _chinese_number(number)
        found += [f"第{value}{unit}", f"{value}{unit}", str(value)]
    return found


def _chinese_number(number: str) -> int:
    if not any(character in _UNITS for character in number):  # 二〇二四
        return int("".join(str(_DIGITS[character]) for character in number))
    total = digit = 0
    for character in number:
        if character in _UNITS:
            total += (digit or 1) * _UNITS[character]
            digit = 0
        else:
            digit = _DIGITS[character]
    return total + digit


@lru_cache(maxsize=1 << 15)  # nearly every word of a text was there before
def _word_terms(run: str) -> tuple[str, ...]:
    return tuple(_terms_of_word(run))


def _terms_of_word(run: str) -> Iterator[str]:
    if run.isascii() and run.isalpha() and (run.islower() or run.isupper() or run.istitle()):
        yield _stem(run.lower())
        return
    run = re.sub("'[sS]$", "", _without_accents(run).replace("\u2010", "-").replace("\u2011", "-")).replace("'", "")
    whole = run.lower()
    if _NUMBER.fullmatch(whole):
        yield whole
        if whole.startswith("0") and whole.strip("0") and "." not in whole:
            yield whole.lstrip("0")
        return
    if whole.isalpha():
        yield _stem(whole)
        humps = _HUMP.split(run)
        yield from (_stem(hump.lower()) for hump in humps if len(humps) > 1)
        return
    yield whole
    if _DECADE.fullmatch(whole):  # the 1980s
        yield whole[:-1]
        return
    yield from _parts(run, whole)


def _parts(run: str, whole: str) -> Iterator[str]:
    """A code's parts, so that A-1207 is found by 1207, v2.3.1 by 2.3.1, e-mail by email and 2024-03-05 by 3."""
    if "-" in whole:
        yield whole.replace("-", "")
    if re.fullmatch(r"v\d[\d.]*", whole):
        yield whole[1:]
    pieces = [piece for part in _CONNECTORS.split(run) for piece in _HUMP.split(part) if piece]
    if len(pieces) < 2:
        return
    for piece in pieces:
        piece = piece.lower()
        yield _stem(piece) if piece.isalpha() else piece
        if piece.isdigit() and piece.startswith("0") and piece.strip("0"):
            yield piece.lstrip("0")


def _without_accents(run: str) -> str:
    if run.isascii():
        return run
    # Accents of Latin, Greek, Cyrillic, Hebrew and Arabic are often left out; further east the marks are vowels.
    decomposed = unicodedata.normalize("NFD", run)
    kept = "".join(c for c in decomposed if ord(c) >= 0x0900 or not unicodedata.combining(c))
    return unicodedata.normalize("NFC", kept)


_stemmers = threading.local()  # a Stemmer may not be shared between threads


# British stems that become American ones by no rule; those of behaviour, organise and analyse do by one.
_AMERICAN = {
    "catalogu": "catalog",
    "centr": "center",
    "defenc": "defens",
    "dialogu": "dialog",
    "fibr": "fiber",
    "kilometr": "kilomet",
    "licenc": "licens",
    "litr": "liter",
    "metr": "meter",
    "offenc": "offens",
    "programm": "program",
    "theatr": "theater",
}
_OUR = re.compile(r"our(?=$|it$|abl$)")


def _stem(word: str) -> str:
    if not word.isascii():
        return word
    stemmer = getattr(_stemmers, "english", None)
    if stemmer is None:
        import Stemmer

        stemmer = _stemmers.english = Stemmer.Stemmer("english")
    stemmed: str = stemmer.stemWord(word)
    if len(stemmed) > 5:
        if stemmed.endswith(("is", "ys")):
            return f"{stemmed[:-1]}z"
        stemmed = _OUR.sub("or", stemmed)
    return _AMERICAN.get(stemmed, stemmed)


def _is_stop_word(word: str, *, shouted: bool) -> bool:
    """Capitals in a question that is not all capitals mean a name: IT and US are not it and us."""
    return word.lower() in ENGLISH_STOP_WORDS and (shouted or len(word) == 1 or not word.isupper())


def _is_glue(term: str) -> bool:
    if len(term) == 1:
        return term in CHINESE_FUNCTION_CHARACTERS
    return len(term) == 2 and not _GLUE.isdisjoint(term) and term not in _NOT_GLUE


# ── sentences ─────────────────────────────────────────────────────────────────────────────────

_LINE = re.compile(r"[^\n\v\f\x85\u2028\u2029]+")
_CLOSERS = "\"'”’」』）】》〉)\\]}»"
_END = re.compile(
    rf"(?:(?P<han>[。！？；｡]+|…{{2,}})|(?P<mark>[!?！？]+)|(?P<dots>\.+|…))[。！？!?.…]*(?P<close>[{_CLOSERS}]*)"
)
_OPENERS = " \t\u00a0\u3000\"'“‘「『（【《〈([{«"
_ENUMERATOR = re.compile(r"\s*[(（]?(?:\d{1,3}(?:\.\d{1,3})*|[A-Za-z]|[ivxIVX]{1,5})\.$")
_LAST_WORD = re.compile(r"[^\s(（\[“\"'‘]+$")
# Never the last word of a sentence.
_LEADING = _words(
    """mr mrs ms dr prof rev hon gen col capt lt sgt messrs mt st fig figs eq eqs ref refs sec ch vol art cf e.g
    i.e eg ie vs viz ca approx al"""
)
_BEFORE_NUMBERS = _words("no nos p pp v para paras ex item")
# Often the last word, and often not: what follows decides.
_EITHER = _words("inc ltd co corp llc plc bros jr sr etc a.m p.m dept est gov univ ed eds ph.d m.d b.a m.a b.sc")
_MONTHS = _words("jan feb mar apr jun jul aug sep sept oct nov dec")
_STARTERS = _words(
    """The This These Those That It Its He She They We I You In On At For From With As If When While After Before
    Since A An And But So However Moreover Therefore Thus There Here Our Their His Her My Your To By All Each
    Both No Not What Who Why How Where Please"""
)


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence, in order. Together they cover all but white space; a line end is a border."""
    spans = []
    for line in _LINE.finditer(text):
        start = line.start()
        for end in _END.finditer(text, line.start(), line.end()):
            if end.start() >= start and _ends_sentence(text, start, end, line):
                spans.append((start, end.end()))
                start = end.end()
        spans.append((start, line.end()))
    return [span for span in (_trimmed(text, *span) for span in spans) if span[0] < span[1]]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _ends_sentence(text: str, start: int, end: re.Match[str], line: re.Match[str]) -> bool:
    after = text[end.end() : end.end() + 40] if end.end() + 40 <= line.end() else text[end.end() : line.end()]
    if not after.strip():
        return True
    if end["han"]:
        return after.lstrip()[0] not in "，、,：的"  # “为什么？”，他问
    spaced, following = after[0].isspace(), after.lstrip(_OPENERS)[:1]
    if not spaced and not is_han(after[0]) and after[0] not in "“‘「『（【《〈":
        return False  # 3.14, example.com, ?page=2
    if following.islower() or after.lstrip()[0] in "，、,;:":
        return False
    if end["mark"]:
        return True
    if not spaced and (end["dots"] == "…" or text[end.start() - 1 : end.start()].isdigit()):
        return False  # 1.概述
    return end["dots"] != "." or not _is_abbreviation(text[start : end.start() + 1], after)


def _is_abbreviation(before: str, after: str) -> bool:
    """Whether the dot that ends `before` belongs to its last word alone."""
    if _ENUMERATOR.fullmatch(before):
        return True
    last = _LAST_WORD.search(before[-40:-1])
    if last is None:
        return False
    word, next_word = last[0].lower(), re.match(r"\W*(\w*)", after)
    following = next_word[1] if next_word else ""
    if word in _LEADING:
        return True
    if word in _BEFORE_NUMBERS or word in _MONTHS:
        return following[:1].isdigit()
    initials = re.fullmatch(r"(?:[^\W\d_]\.)*[^\W\d_]", last[0]) is not None and last[0] != "I"
    return (initials or word in _EITHER) and following not in _STARTERS

"""Web pages: the main text with its headings, lists, tables and code, without what surrounds or hides in it."""

from __future__ import annotations

import re
from copy import deepcopy
from datetime import date
from typing import Any
from urllib.parse import urljoin, urlsplit

from ingest.readers.blocks import Blocks
from ingest.readers.encoding import decode
from ingest.readers.html_clean import drop_furniture, drop_hidden, spread_spans, weight, why_blocked
from ingest.readers.html_walk import Walk
from ingest.readers.options import ReadOptions
from ingest.readers.text import declared_charset, note_encoding
from rag.errors import DocumentError
from rag.models import MetadataValue, Parsed
from rag.text.language import canonical

_META_CHARSET = re.compile(
    rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w.:-]+)|<\?xml[^>]{0,80}encoding=[\"']([\w.:-]+)", re.I
)
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_TOO_LITTLE = 50
_ARTICLE_DEPTH = 200  # of nesting; a deeper page is hostile or broken, and trafilatura calls itself for every level
_PARSED_DEPTH = 2_000  # lxml stops reading a little below this depth, and says nothing
_NOBODY = re.compile(r"\b(?:name|e-?mail|admin|administrator)\b", re.IGNORECASE)  # labels of forms, taken for authors
_SITE_BEHIND = re.compile(r"\s*[-_|–—]\s*[^-_|–—]{1,20}(?:网|網|网站|網站|门户|频道|頻道|百科|论坛|博客)$")
_TITLE_BREAK = re.compile(r"\s*(?:[|_·»]|\s[-–—:]\s|(?<=[\u4e00-\u9fff])[-–—])\s*")


def read_html(data: bytes, *, options: ReadOptions, media_type: str | None = None) -> Parsed:  # noqa: ARG001  # every reader is called alike
    text, _ = decode(data, declared_charset(media_type) or _charset_in(data))
    page = _tree(canonical(text))
    if page is None:
        return Blocks().parsed()
    if _depth(page) > _PARSED_DEPTH:
        raise DocumentError("too_large", f"This page nests its elements more than {_PARSED_DEPTH:,} deep.")
    title, metadata = _about(page)
    shown = deepcopy(page)
    drop_hidden(shown)
    spread_spans(shown)
    blocks = _main_text(shown)
    note_encoding(blocks, text)
    parsed = blocks.parsed(title=title, metadata=metadata)
    reason = why_blocked(page, parsed.text)
    if reason:
        remedy = "Give the source a cookie or header that opens it, or add the text as a file."
        raise DocumentError("blocked", f"The page {title or 'without a title'!r} {reason}.", remedy=remedy)
    return parsed


def _charset_in(data: bytes) -> str | None:
    found = _META_CHARSET.search(data[:4096])
    return (found.group(1) or found.group(2)).decode("ascii", errors="ignore") if found else None


def _tree(text: str) -> Any | None:
    from lxml import etree, html

    text = _XML_DECLARATION.sub("", text)
    if not text.strip():
        return None
    try:
        return html.document_fromstring(text, parser=html.HTMLParser(remove_pis=True, huge_tree=True))
    except etree.ParserError:  # a document of nothing but comments
        return None
    except etree.XMLSyntaxError as error:
        raise DocumentError("corrupt", f"This HTML cannot be parsed: {error}.") from error


def _main_text(page: Any) -> Blocks:
    """What trafilatura takes for the main text; where that is next to nothing, all that is not plainly furniture."""
    rest = deepcopy(page)
    drop_furniture(rest)
    everything = weight("".join(_said_to_be_main(rest).itertext()))
    found = _article(page) if _depth(page) <= _ARTICLE_DEPTH else None
    if found is not None:
        blocks = Blocks()
        Walk(blocks).tree(found)
        found_weight = weight("".join(found.itertext()))
        # Its last resort is one paragraph of all words of the page, tables and menus included.
        dumped = len(blocks) == 1 and found_weight > 0.8 * everything
        if not dumped and not (_marks_main(rest) and found_weight < everything / 3):
            return blocks
    blocks = Blocks()
    Walk(blocks).tree(_said_to_be_main(rest))
    return blocks


def _article(page: Any) -> Any | None:
    """The main text as trafilatura's own small XML, or None where there is too little of it."""
    import trafilatura

    # Its thresholds count characters, and a Chinese article has a third as many as an English one: left to itself it
    # takes whole pages for too short an article (one page of the evaluation set: F1 0.37, in precise mode 0.93).
    for precise in (True, False) if _han_share(page) > 0.3 else (False,):
        found = trafilatura.bare_extraction(
            deepcopy(page), include_comments=False, include_formatting=True, favor_precision=precise
        )
        if found is not None and weight(found.text or "") >= _TOO_LITTLE:
            return found.body
    return None


def _marks_main(page: Any) -> list[Any]:
    """What the page itself marks as its main part. On the evaluation set, 60 % and more of it is always found."""
    marked: list[Any] = page.xpath("//main|//*[@role='main']") or page.xpath("//article[count(//article) = 1]")
    return marked


def _said_to_be_main(page: Any) -> Any:
    marked = _marks_main(page)
    body = page.find("body")
    return marked[0] if marked else page if body is None else body


def _depth(page: Any) -> int:
    """How deep elements nest."""
    deepest, depths = 0, {page: 1}
    for element in page.iterdescendants():
        depths[element] = depths[element.getparent()] + 1
        deepest = max(deepest, depths[element])
    return deepest


def _han_share(page: Any) -> float:
    text = "".join(page.itertext())
    letters = sum(1 for character in text if character.isalpha())
    return sum(1 for character in text if "\u3400" <= character <= "\u9fff") / max(letters, 1)


def _about(page: Any) -> tuple[str | None, dict[str, MetadataValue]]:
    """Title and metadata, as the page tells them."""
    from trafilatura.metadata import extract_metadata

    # Without the extensive search no date is guessed from a copyright line.
    found = extract_metadata(deepcopy(page), date_config={"original_date": True, "extensive_search": False})
    metadata: dict[str, MetadataValue] = {}
    if found.author and not _NOBODY.search(found.author):
        metadata["author"] = found.author
    if found.date:
        metadata["date"] = date.fromisoformat(found.date)
    if found.sitename:
        metadata["sitename"] = found.sitename
    language = (page.get("lang") or "").strip()
    if re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*", language):
        metadata["language"] = language.replace("_", "-")
    url = _canonical_url(page)
    if url:
        metadata["canonical_url"] = url
    return _title(page, found.sitename), metadata


def _canonical_url(page: Any) -> str | None:
    links = page.xpath("//link[@rel='canonical']/@href") + page.xpath("//meta[@property='og:url']/@content")
    base = next(iter(page.xpath("//base/@href")), "")
    for link in links:
        url: str = urljoin(base, link.strip())
        if urlsplit(url).scheme in ("http", "https"):
            return url
    return None


def _title(page: Any, site: str | None) -> str | None:
    """og:title, <title> or <h1>, without the site's name behind it."""
    said: list[str] = page.xpath("//meta[@property='og:title']/@content") + [
        each.text_content() for each in page.xpath("//head/title")
    ]
    headings: list[str] = [" ".join(each.text_content().split()) for each in page.xpath("//h1")]
    title: str = next((" ".join(each.split()) for each in said if each.strip()), "")
    if not title:
        return next((str(heading) for heading in headings if heading), None)
    for heading in headings:
        if len(heading) >= 4 and title.startswith(heading):
            return str(heading)
    title = _SITE_BEHIND.sub("", title) or title
    parts: list[str] = _TITLE_BREAK.split(title)
    if site and len(parts) > 1 and parts[-1].lower() == site.lower():
        return str(title[: title.rindex(parts[-1])].rstrip(" |_-–—·»:")) or title
    return title

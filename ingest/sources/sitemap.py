"""Sitemaps: which pages a site names, through index files and gzip, under limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ingest.sources.addresses import normalise, shortened
from ingest.sources.transport import Page
from ingest.sources.unpack import gunzip
from rag.errors import AttestError, SourceError

MAX_SITEMAPS = 100
MAX_DEPTH = 3
MAX_BYTES = 50 * 2**20  # what the sitemap protocol allows one file


def sitemap_pages(url: str, fetch: Callable[[str], Page]) -> Iterator[tuple[str, str]]:
    """Each page's normalised URL with the URL of the sitemap that names it.

    Raises SourceError where any of the files cannot be had or read: then the listing would not be complete.
    """
    waiting = [(url, 1)]
    seen = {url}
    while waiting:
        address, depth = waiting.pop(0)
        page = fetch(address)
        if page.status != 200:
            raise SourceError(
                f"The sitemap {shortened(address)} answered {page.status}.",
                remedy="Check its address, then sync again.",
            )
        nested, pages = _read(page, address)
        for child in nested:
            if child in seen:
                continue
            if depth >= MAX_DEPTH or len(seen) >= MAX_SITEMAPS:
                raise SourceError(
                    f"{shortened(url)} names too many further sitemaps.",
                    remedy=f"At most {MAX_SITEMAPS} files, {MAX_DEPTH} deep, are read; name a smaller one.",
                )
            seen.add(child)
            waiting.append((child, depth + 1))
        for found in pages:
            yield found, page.url


def _read(page: Page, address: str) -> tuple[list[str], list[str]]:
    data = page.data
    if data[:2] == b"\x1f\x8b":
        try:
            data = gunzip(data, max_bytes=MAX_BYTES, name=shortened(address))
        except AttestError as error:
            raise SourceError(error.detail, remedy="Check the sitemap, then sync again.") from error
    if page.media_type == "text/plain" and not data.lstrip().startswith(b"<"):
        return [], _urls(data.decode("utf-8", "replace").splitlines(), page.url)
    return _read_xml(data, page.url)


def _read_xml(data: bytes, address: str) -> tuple[list[str], list[str]]:
    import lxml.etree

    parser = lxml.etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = lxml.etree.fromstring(data, parser=parser)
    except (lxml.etree.LxmlError, ValueError) as error:
        raise SourceError(
            f"The sitemap {shortened(address)} is not well-formed XML ({error}).", remedy="Check it, then sync again."
        ) from error
    kind = lxml.etree.QName(root).localname
    if kind not in ("sitemapindex", "urlset"):
        raise SourceError(
            f"{shortened(address)} is no sitemap: it begins with <{kind}>.", remedy="Give the address of a sitemap."
        )
    places = [element.text or "" for element in root.iterfind("{*}*/{*}loc")]
    urls = _urls(places, address)
    return (urls, []) if kind == "sitemapindex" else ([], urls)


def _urls(lines: list[str], base: str) -> list[str]:
    urls: dict[str, None] = {}
    for line in lines:
        text = line.strip().lstrip("\ufeff")
        if not text:
            continue
        try:
            urls[normalise(text, base=base)] = None
        except AttestError:
            continue  # a line that is no web address names no page
    return list(urls)

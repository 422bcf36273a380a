"""What a fetched page says about itself: its links, its canonical address, whether it wants to be listed or a login."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from dataclasses import dataclass
from email.message import Message
from urllib.parse import parse_qsl, unquote, urlsplit

from ingest.sources.addresses import normalise, origin
from rag.errors import AttestError

MAX_PARSED_BYTES = 5 * 2**20  # links further down a page are not looked for
MAX_LINKS = 1_000
MAX_LINKS_READ = 10_000  # many may lead to one address; each costs 0.1 ms to read
MAX_URL_CHARS = 1_500
MAX_PARAMETERS = 8
MAX_LOGIN_CHARS = 400  # a page with a password field and more text than this has something to say of its own

_NOT_READ = re.compile(
    r"\.(png|jpe?g|gif|webp|avif|svg|ico|bmp|tiff?|mp3|m4[av]|avi|mov|mp4|mkv|webm|wav|ogg|flac|zip|gz|tgz|bz2|xz|7z|rar|tar"
    r"|exe|msi|dmg|pkg|deb|rpm|apk|iso|jar|css|m?js|map|woff2?|[to]tf|eot|rss|atom|ics|swf|wasm|bin|epub|mobi)/?$",
    re.IGNORECASE,
)
_LOGIN = re.compile(
    r"(wp[-_])?log[-_]?in|log[-_]?on|sign[-_]?in|sso|oauth2?|saml2?|passport|cas|authenticate", re.IGNORECASE
)
_LOGIN_HOST = re.compile(r"(login|signin|sso|auth|accounts?|passport|idp|cas|adfs)\.", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PageFacts:
    links: tuple[str, ...] = ()  # normalised, in the order of the page, each once
    canonical: str | None = None  # on the same site only
    listed: bool = True  # False where the page asks not to be
    wants_login: bool = False


def page_facts(
    data: bytes, url: str, *, media_type: str | None, charset: str | None, robots_header: str = ""
) -> PageFacts:
    """The facts of one page; of anything but HTML, and of bytes that are no page, only what the header says."""
    import lxml.etree

    # "otherbot: noindex" is for another reader.
    rules = {part.strip() for part in robots_header.lower().split(",") if ":" not in part}
    from_header = PageFacts(listed=not rules & {"noindex", "none"})
    if media_type not in (None, "text/html", "application/xhtml+xml"):
        return from_header
    try:
        return _html_facts(data[:MAX_PARSED_BYTES], url, charset, rules)
    except (lxml.etree.LxmlError, ValueError):
        return from_header


def _html_facts(data: bytes, url: str, charset: str | None, rules: set[str]) -> PageFacts:
    import lxml.html

    try:
        parser = lxml.html.HTMLParser(encoding=charset, no_network=True)
    except LookupError:  # Python knows it and libxml2 does not
        parser = lxml.html.HTMLParser(no_network=True)
    root = lxml.html.document_fromstring(data, parser=parser)
    for meta in root.iterfind(".//meta[@name]"):
        if meta.get("name", "").lower() in ("robots", "attest"):
            rules |= set(re.findall(r"[a-z]+", (meta.get("content") or "").lower()))
    base = _base(root, url)
    return PageFacts(
        links=() if rules & {"nofollow", "none"} else tuple(_links(root, base)),
        canonical=_canonical(root, base, url),
        listed=not rules & {"noindex", "none"},
        wants_login=_wants_login(root),
    )


def _base(root, url: str) -> str:  # type: ignore[no-untyped-def]  # lxml has no types
    element = root.find(".//base[@href]")
    return _absolute(element.get("href"), url) or url if element is not None else url


def _links(root, base: str) -> list[str]:  # type: ignore[no-untyped-def]
    found: dict[str, None] = {}
    seen: set[str] = set()
    for element in root.iter("a", "area"):
        href = element.get("href")
        if not href or href in seen or "nofollow" in (element.get("rel") or "").lower().split():
            continue
        seen.add(href)
        url = _absolute(href, base)
        if url is not None:
            found[url] = None
        if len(found) >= MAX_LINKS or len(seen) >= MAX_LINKS_READ:
            break
    return list(found)


def _canonical(root, base: str, url: str) -> str | None:  # type: ignore[no-untyped-def]
    for element in root.iterfind(".//link[@rel][@href]"):
        if "canonical" in element.get("rel").lower().split():
            target = _absolute(element.get("href"), base)
            return target if target is not None and origin(target) == origin(normalise(url)) else None
    return None


def _wants_login(root) -> bool:  # type: ignore[no-untyped-def]
    if not any((field.get("type") or "").lower() == "password" for field in root.iter("input")):
        return False
    for element in list(root.iter("script", "style", "noscript", "template")):
        element.drop_tree()
    return len("".join(root.text_content().split())) < MAX_LOGIN_CHARS


def _absolute(href: str, base: str) -> str | None:
    """A link as a normalised URL, or None where it leads to no page (mailto:, javascript:, too long, nonsense)."""
    if len(href) > MAX_URL_CHARS or re.match(r"\s*(?!https?:)[a-z][a-z0-9+.-]*:", href, re.IGNORECASE):
        return None
    try:
        return normalise(href, base=base)
    except AttestError:
        return None


def worth_following(url: str) -> bool:
    """False for pictures, archives and the like, and for the shapes that endless URL spaces take."""
    parts = urlsplit(url)
    if len(url) > MAX_URL_CHARS or len(parse_qsl(parts.query, keep_blank_values=True)) > MAX_PARAMETERS:
        return False
    segments = [segment for segment in parts.path.split("/") if segment]
    if len(segments) > 20 or any(count > 3 for count in Counter(segments).values()):
        return False
    return not _NOT_READ.search(parts.path)


def looks_like_login(url: str) -> bool:
    """Whether a redirect to this address is a request to log in."""
    parts = urlsplit(url)
    segments = re.split(r"[/.]", parts.path)
    return bool(_LOGIN_HOST.match(parts.netloc)) or any(_LOGIN.fullmatch(segment) for segment in segments)


def charset_of(content_type: str | None) -> str | None:
    """The charset that a Content-Type header declares, if Python knows it."""
    message = Message()
    message["Content-Type"] = content_type or ""
    declared = message.get_content_charset()
    try:
        return codecs.lookup(declared).name if declared else None
    except (LookupError, ValueError):
        return None


def file_name(url: str, disposition: str | None, media_type: str | None) -> str:
    """A name that helps to tell the format: as the server calls it, else the last part of the URL."""
    message = Message()
    message["Content-Disposition"] = disposition or ""
    declared = message.get_filename()
    name = (declared or unquote(urlsplit(url).path.rpartition("/")[2])).replace("\\", "/").rpartition("/")[2].strip()
    if name:
        return name
    return "index.html" if media_type in (None, "text/html", "application/xhtml+xml") else "index"

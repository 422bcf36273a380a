"""One address of a web source: asked politely, and turned into an item, a failure, or nothing at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from ingest.sources.addresses import normalise, origin, shortened
from ingest.sources.pages import charset_of, file_name, looks_like_login, page_facts
from ingest.sources.robots import Robots
from ingest.sources.spool import Spool
from ingest.sources.transport import Page, Transport
from rag.errors import AttestError, DocumentError, SourceError
from rag.models import Item, Original, Problem, Unlisted

MAX_FAILURES_IN_A_ROW = 10  # then the site is down; asking on would take hours
MAX_KEPT_LINKS = 400  # a page with more is fetched whole each time instead of asking whether it changed

# listed: named in the configuration. start: where a crawl begins. sitemap, crawled: found, so robots rules for
# indexing hold and redirects stay on the site.
Role = Literal["listed", "start", "sitemap", "crawled"]


@dataclass(frozen=True, slots=True)
class Visit:
    """`final` is where the address led; None where it led to nothing of this site."""

    offer: Item | Unlisted | None
    links: tuple[str, ...] = ()
    final: str | None = None

    @property
    def failed(self) -> bool:
        return isinstance(self.offer, Unlisted)


class _LeftSite(Exception):
    """A redirect leads to another site, which is not what was asked for."""


class Visitor:
    """Visits the addresses of one listing, and remembers which keys it has given out."""

    def __init__(
        self,
        transport: Transport,
        known: Mapping[str, Mapping[str, str]],
        *,
        keep_links: bool,
        robots: Robots,
        conditional: bool = True,
    ) -> None:
        self._transport = transport
        self._known = known
        self._keep_links = keep_links
        self._conditional = conditional
        self._robots = robots
        self._spool = Spool()
        self._given: dict[str, str] = {}  # key → hash of the content
        # A page is known by the address it was asked at, too, where that redirects or names another as canonical.
        self._keys = {state["requested"]: key for key, state in known.items() if "requested" in state}
        self._failures = 0  # in a row
        self.reached: set[str] = set()  # keys that were asked for, whatever came of it

    def key_of(self, url: str) -> str:
        """The key that this address was stored under, or itself where it is new."""
        return url if url in self._known else self._keys.get(url, url)

    def give_up(self, key: str) -> None:
        """This key has been given out as a failure; whatever leads to it from now on gives nothing."""
        self._given[key] = ""
        self.reached.add(key)

    def visit(self, url: str, role: Role) -> Visit:
        """What this address offers: an item, a failure that keeps the last good copy, or None where there is nothing.

        Raises SourceError where the site's robots.txt cannot be had, or page after page fails; a listed address never.
        """
        key = self.key_of(url)
        self.reached.add(key)
        state = self._known.get(key, {})
        try:
            if not self._robots.allows(url):
                return self._failure(url, role, _forbidden(url))
            may_ask = self._conditional and (not self._keep_links or "links" in state)
            page = self._transport.get(
                url,
                etag=state.get("etag") if may_ask else None,
                last_modified=state.get("last_modified") if may_ask else None,
                on_redirect=lambda hop: self._check_hop(url, hop, role),
            )
        except _LeftSite:
            return Visit(None)
        except SourceError as error:
            if role != "listed":
                raise
            return self._failure(url, role, Problem("blocked", error.detail, error.remedy))
        except AttestError as error:
            code = error.status if isinstance(error, DocumentError) else "blocked"
            return self._failure(url, role, Problem(code, error.detail, error.remedy))
        return self._answered(url, role, page)

    def _check_hop(self, url: str, hop: str, role: Role) -> None:
        if looks_like_login(hop) and not looks_like_login(url):
            raise DocumentError("blocked", f"{shortened(url)} asks for a login.", remedy=_LOGIN_REMEDY)
        if role in ("sitemap", "crawled") and not _same_host(url, hop):
            raise _LeftSite
        if not self._robots.allows(normalise(hop)):
            raise DocumentError("blocked", f"{shortened(url)} leads to a page that robots.txt forbids.")

    def _answered(self, url: str, role: Role, page: Page) -> Visit:
        key = self.key_of(url)
        if page.status < 429:
            self._failures = 0
        if page.status == 200:
            return self._found(url, role, page)
        if page.status == 304 and key in self._known:
            return self._not_modified(url, key, page)
        if page.status in (404, 410):
            return Visit(None)
        if page.status in (401, 402, 403, 407, 451):
            problem = Problem("blocked", f"{shortened(url)} refused with status {page.status}.", _LOGIN_REMEDY)
        else:
            problem = Problem("failed", f"{shortened(url)} answered with status {page.status}.", "Try again later.")
        return self._failure(url, role, problem)

    def _found(self, url: str, role: Role, page: Page) -> Visit:
        content_type = page.headers.get("content-type")
        facts = page_facts(
            page.data,
            page.url,
            media_type=page.media_type,
            charset=charset_of(content_type),
            robots_header=page.headers.get("x-robots-tag", ""),
        )
        if not page.data.strip():
            problem = Problem("empty", f"{shortened(url)} answered with nothing.", "Try again later.")
            return self._failure(url, role, problem)
        if facts.wants_login:
            problem = Problem("blocked", f"{shortened(url)} shows a login form and little else.", _LOGIN_REMEDY)
            return self._failure(url, role, problem)
        final = normalise(page.url)
        if not facts.listed and role != "listed":
            return Visit(None, facts.links, final)
        digest = hashlib.sha256(page.data).hexdigest()
        own = final if _same_host(url, final) or role == "start" else url
        key = self._free_key(own, facts.canonical, digest)
        if key is None:
            return Visit(None, facts.links, final)
        state = self._state(url, key, page, digest, facts.links)
        item = Item(
            key=key,
            uri=_uri(key, final),
            state=state,
            load=_loader(self._spool.put(page.data), page, state),
            unchanged=self._known.get(key, {}).get("sha256") == digest,
        )
        return Visit(self._give(item, digest), facts.links, final)

    def _free_key(self, own: str, canonical: str | None, digest: str) -> str | None:
        """The key of a page; None where the same page has been given out already.

        A canonical address is believed unless it would merge different pages: sites exist that name their front page
        as the canonical address of all others.
        """
        wanted = canonical if canonical is not None and origin(canonical) == origin(own) else own
        if wanted not in self._given:
            return wanted
        if wanted == own or self._given[wanted] == digest or urlsplit(wanted).path == urlsplit(own).path:
            return None
        return own if own not in self._given else None

    def _state(self, url: str, key: str, page: Page, digest: str, links: tuple[str, ...]) -> dict[str, str]:
        state = {"sha256": digest}
        for name, header in (("etag", "etag"), ("last_modified", "last-modified")):
            if header in page.headers:
                state[name] = page.headers[header]
        if url != key:
            state["requested"] = url
        if self._keep_links and len(links) <= MAX_KEPT_LINKS:
            state["links"] = json.dumps(links, ensure_ascii=False, separators=(",", ":"))
        return state

    def _not_modified(self, url: str, key: str, page: Page) -> Visit:
        state = self._known[key]
        final = normalise(page.url)
        if key in self._given:
            return Visit(None, _links_in(state), final)
        load = _reloader(self._transport, url, state)
        item = Item(key=key, uri=_uri(key, final), state=state, load=load, unchanged=True)
        return Visit(self._give(item, state.get("sha256", "")), _links_in(state), final)

    def _give(self, item: Item, digest: str) -> Item:
        self._given[item.key] = digest
        self.reached.add(item.key)
        self._failures = 0
        return item

    def _failure(self, url: str, role: Role, problem: Problem) -> Visit:
        key = self.key_of(url)
        links = _links_in(self._known.get(key, {}))
        if key in self._given:
            return Visit(None, links)
        if role == "crawled" and problem.code in ("unsupported", "blocked") and key not in self._known:
            return Visit(None)  # a crawl passes by links to videos and members' areas; they are no news
        self.give_up(key)
        self._failures += problem.code == "failed"
        if self._failures >= MAX_FAILURES_IN_A_ROW and role != "listed":
            raise SourceError(
                f"{self._failures} pages in a row failed, at last: {problem.detail}",
                remedy="Try again when the site is up.",
            )
        return Visit(Unlisted(key=key, uri=url, problem=problem), links)


def _forbidden(url: str) -> Problem:
    detail = f"{shortened(url)} must not be read, says its robots.txt."
    return Problem("blocked", detail, "Ask the site's owner, or leave it out.")


_LOGIN_REMEDY = "Give the source a header or a cookie that may read it, or leave it out."


def _loader(read: Callable[[], bytes], page: Page, state: Mapping[str, str]) -> Callable[[], Original]:
    described = _described(replace(page, data=b""), state)
    return lambda: replace(described, data=read())


def _reloader(transport: Transport, url: str, state: Mapping[str, str]) -> Callable[[], Original]:
    """For a page that is unchanged, and is wanted all the same (another reader, say)."""

    def load() -> Original:
        try:
            page = transport.get(url)
        finally:
            transport.close()
        if page.status != 200:
            raise DocumentError("failed", f"{shortened(url)} answered with status {page.status}.")
        return _described(page, {**state, "sha256": hashlib.sha256(page.data).hexdigest()})

    return load


def _described(page: Page, state: Mapping[str, str]) -> Original:
    name = file_name(page.url, page.headers.get("content-disposition"), page.media_type)
    return Original(data=page.data, name=name, media_type=page.headers.get("content-type"), state=state)


def _links_in(state: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(json.loads(state["links"])) if "links" in state else ()


def _same_host(url: str, other: str) -> bool:
    """Same site, where moving from http to https is no other site."""
    return origin(other) in (origin(url), origin(url).replace("http://", "https://", 1))


def _uri(key: str, final: str) -> str:
    return key if origin(key) == origin(final) else final

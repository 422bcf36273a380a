"""A source of web pages: addresses, a sitemap, or a bounded crawl of one site."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import translate

from ingest.sources.addresses import check_url, normalise, origin, shortened
from ingest.sources.pages import worth_following
from ingest.sources.robots import Robots
from ingest.sources.sitemap import sitemap_pages
from ingest.sources.transport import Page, Transport
from ingest.sources.visit import Role, Visit, Visitor
from rag.errors import AttestError, InvalidInput, SourceError
from rag.models import Item, Problem, Unlisted

MAX_SITEMAP_PAGES = 10_000
MAX_CRAWL_DEPTH = 10
MAX_CRAWL_PAGES = 10_000


class WebSource:
    """Lists the pages of `urls` and `sitemap`; with `crawl_depth`, what the urls link to on their own sites as well.

    A page's key is where its redirects end, or the canonical address it names. A page that answers 404 or 410 is not
    listed; one that fails otherwise is Unlisted. `include` and `exclude` are globs over a found page's path and query
    (over the whole URL where they contain `://`); `*` crosses slashes. Excluded pages are not followed either.
    Without `conditional`, pages are fetched whole, whatever their ETag or date of modification was.
    """

    def __init__(
        self,
        *,
        urls: Sequence[str] = (),
        sitemap: str | None = None,
        crawl_depth: int | None = None,
        crawl_max_pages: int = 200,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        allow_private: bool = False,
        headers: Mapping[str, str] | None = None,
        delay_seconds: float = 1.0,
        max_bytes: int,
        conditional: bool = True,
        transport: Transport | None = None,
    ) -> None:
        _check_limits(urls, sitemap, crawl_depth, crawl_max_pages)
        configured = [*urls, sitemap] if sitemap else list(urls)
        hosts = {check_url(url, allow_private=allow_private).host for url in configured}
        self._urls = list(dict.fromkeys(normalise(url) for url in urls))
        self._sitemap = normalise(sitemap) if sitemap else None
        self._crawl_depth = crawl_depth
        self._crawl_max_pages = crawl_max_pages
        self._conditional = conditional
        self._include = [_glob(pattern) for pattern in include]
        self._exclude = [_glob(pattern) for pattern in exclude]
        self._transport = transport or Transport(
            allow_private=allow_private,
            max_bytes=max_bytes,
            delay_seconds=delay_seconds,
            headers=headers,
            trusted_hosts=frozenset(hosts),
        )

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item | Unlisted]:
        """Every page there is. Raises SourceError where a start page, a sitemap or a robots.txt cannot be had."""
        robots = Robots(lambda url: self._transport.get(url, any_type=True), self._transport.slow_down)
        visitor = Visitor(
            self._transport,
            known,
            keep_links=self._crawl_depth is not None,
            robots=robots,
            conditional=self._conditional,
        )
        try:
            if self._sitemap is not None:
                yield from self._from_sitemap(self._sitemap, visitor, known, robots)
            if self._crawl_depth is None:
                for url in self._urls:
                    yield from _offered(visitor.visit(url, "listed"))
            else:
                yield from _Crawl(self, visitor, known, max_depth=self._crawl_depth).run(self._urls)
        finally:
            self._transport.close()

    def wanted(self, url: str) -> bool:
        return not self.excluded(url) and (not self._include or _matches(self._include, url))

    def excluded(self, url: str) -> bool:
        return _matches(self._exclude, url)

    @property
    def max_pages(self) -> int:
        return self._crawl_max_pages

    def _from_sitemap(
        self, sitemap: str, visitor: Visitor, known: Mapping[str, Mapping[str, str]], robots: Robots
    ) -> Iterator[Item | Unlisted]:
        def fetch(url: str) -> Page:
            if not robots.allows(url):
                raise SourceError(f"{shortened(url)} must not be read, says its robots.txt.")
            try:
                return self._transport.get(url, any_type=True)
            except AttestError as error:
                raise SourceError(f"The sitemap could not be read: {error.detail}", remedy=error.remedy) from error

        asked: set[str] = set()
        foreign: list[str] = []
        for named, where in sitemap_pages(sitemap, fetch):
            url = _on_sites(named, {origin(sitemap), origin(normalise(where))})
            if url is None:
                foreign.append(named)
            elif url not in asked and self.wanted(url):
                if len(asked) >= MAX_SITEMAP_PAGES:
                    yield from _out_of_reach(visitor, known, [url], f"after {MAX_SITEMAP_PAGES} pages of the sitemap")
                    return
                asked.add(url)
                yield from _offered(visitor.visit(url, "sitemap"))
        if foreign:
            detail = f"{len(foreign)} addresses of the sitemap lie on other sites, {shortened(foreign[0])} first."
            problem = Problem("blocked", detail, "Add those sites as sources of their own.")
            yield Unlisted(key=foreign[0], uri=foreign[0], problem=problem)


class _Crawl:
    """Breadth first, in the order of the links, so that two crawls of an unchanged site agree."""

    def __init__(
        self, source: WebSource, visitor: Visitor, known: Mapping[str, Mapping[str, str]], *, max_depth: int
    ) -> None:
        self._source = source
        self._visitor = visitor
        self._known = known
        self._max_depth = max_depth
        self._waiting: deque[tuple[str, int]] = deque()
        self._seen: set[str] = set()
        self._finals: set[str] = set()
        self._sites: set[str] = set()
        self._visits = 0
        self._complete = True

    def run(self, starts: Sequence[str]) -> Iterator[Item | Unlisted]:
        self._seen.update(starts)
        self._waiting.extend((url, 0) for url in starts)
        while self._waiting and self._visits < self._source.max_pages:
            url, depth = self._waiting.popleft()
            if url in self._finals:
                continue  # a redirect has led here already
            visit = self._visit(url, "start" if depth == 0 else "crawled")
            if depth == 0:
                self._check_start(url, visit)
            if visit.offer is not None and (visit.failed or self._source.wanted(visit.offer.key)):
                yield visit.offer
            if depth < self._max_depth:
                self._follow(visit.links, depth + 1)
        if self._waiting or not self._complete:
            yield from self._unreached()

    def _visit(self, url: str, role: Role) -> Visit:
        visit = self._visitor.visit(url, role)
        self._visits += 1
        self._complete = self._complete and not visit.failed
        if visit.final is not None:
            self._seen.add(visit.final)
            self._finals.add(visit.final)
        return visit

    def _check_start(self, url: str, visit: Visit) -> None:
        """A crawl without its start page would look like a site that lost all its pages."""
        if isinstance(visit.offer, Unlisted):
            problem = visit.offer.problem
            raise SourceError(f"The crawl could not begin. {problem.detail}", remedy=problem.remedy)
        if visit.final is None:
            raise SourceError(
                f"The crawl could not begin: there is nothing to read at {shortened(url)}.", remedy="Check the address."
            )
        self._sites.add(origin(visit.final))

    def _follow(self, links: Sequence[str], depth: int) -> None:
        for link in links:
            url = _on_sites(link, self._sites)
            if url is None or url in self._seen or not worth_following(url) or self._source.excluded(url):
                continue
            self._seen.add(url)
            self._waiting.append((url, depth))

    def _unreached(self) -> Iterator[Item | Unlisted]:
        """Known pages that an incomplete crawl did not come by, asked for one by one: none is deleted by mistake."""
        reason = f"at its limit of {self._source.max_pages} pages"
        waiting = [url for url, _ in self._waiting]
        for key in self._known:
            if key in self._visitor.reached or _on_sites(key, self._sites) is None or not self._source.wanted(key):
                continue
            if self._visits >= self._source.max_pages:
                break
            yield from _offered(self._visit(key, "crawled"))
        if waiting or self._visits >= self._source.max_pages:
            yield from _out_of_reach(self._visitor, self._known, waiting, reason)


def _out_of_reach(
    visitor: Visitor, known: Mapping[str, Mapping[str, str]], waiting: Sequence[str], reason: str
) -> Iterator[Unlisted]:
    """Known pages behind a limit keep their copies; the first unknown one stands for all that were left out."""
    new = [url for url in waiting if visitor.key_of(url) not in known][:1]
    for key in [*(key for key in known if key not in visitor.reached), *new]:
        visitor.give_up(key)
        problem = Problem("too_large", f"The listing ended {reason}, before {shortened(key)}.", "Raise the limit.")
        yield Unlisted(key=key, uri=key, problem=problem)


def _offered(visit: Visit) -> Iterator[Item | Unlisted]:
    if visit.offer is not None:
        yield visit.offer


def _on_sites(url: str, sites: set[str]) -> str | None:
    """The URL as it is asked for on one of these sites (http becomes https where the site is), or None."""
    for candidate in (url, url.replace("http://", "https://", 1)):
        if origin(candidate) in sites:
            return candidate
    return None


def _glob(pattern: str) -> tuple[bool, re.Pattern[str]]:
    """Whether it is matched against the whole URL, and the pattern."""
    whole = "://" in pattern
    rooted = pattern if whole or pattern.startswith(("/", "*")) else f"/{pattern}"
    return whole, re.compile(translate(rooted), re.IGNORECASE)


def _matches(globs: Sequence[tuple[bool, re.Pattern[str]]], url: str) -> bool:
    path = url[len(origin(url)) :]
    return any(pattern.match(url if whole else path) for whole, pattern in globs)


def _check_limits(urls: Sequence[str], sitemap: str | None, crawl_depth: int | None, crawl_max_pages: int) -> None:
    if not urls and not sitemap:
        raise InvalidInput("A web source needs an address.", remedy="Give it `urls` or a `sitemap`.")
    if crawl_depth is not None and not urls:
        raise InvalidInput("A crawl needs a page to begin with.", remedy="Give the source `urls`.")
    if crawl_depth is not None and not 0 <= crawl_depth <= MAX_CRAWL_DEPTH:
        raise InvalidInput(f"A crawl cannot be {crawl_depth} deep.", remedy=f"Choose 0 to {MAX_CRAWL_DEPTH}.")
    if not 1 <= crawl_max_pages <= MAX_CRAWL_PAGES:
        raise InvalidInput(f"A crawl cannot have {crawl_max_pages} pages.", remedy=f"Choose 1 to {MAX_CRAWL_PAGES}.")

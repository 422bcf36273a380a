"""What a site's robots.txt allows us, asked for once per site."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ingest.sources.addresses import origin, shortened
from ingest.sources.transport import Page
from rag.errors import AttestError, SourceError

if TYPE_CHECKING:
    from protego import Protego

ROBOT_NAME = "Attest"
MAX_CRAWL_DELAY_SECONDS = 10.0
MAX_READ_BYTES = 512 * 1024  # RFC 9309 asks for at least 500 KiB


class Robots:
    """Answers whether a URL may be fetched.

    As RFC 9309 has it: a robots.txt that is not there (4xx) allows everything, one that cannot be had (5xx, no
    connection) allows nothing, which is a SourceError here.
    """

    def __init__(self, fetch: Callable[[str], Page], slow_down: Callable[[str, float], None]) -> None:
        self._fetch = fetch
        self._slow_down = slow_down
        self._rules: dict[str, Protego | SourceError] = {}

    def allows(self, url: str) -> bool:
        site = origin(url)
        if site not in self._rules:
            self._rules[site] = self._ask(site)
        rules = self._rules[site]
        if isinstance(rules, SourceError):
            raise rules
        return bool(rules.can_fetch(url, ROBOT_NAME))

    def _ask(self, site: str) -> Protego | SourceError:
        from protego import Protego

        remedy = "Try again later; until it answers, nothing of this site is read."
        try:
            page = self._fetch(f"{site}/robots.txt")
        except AttestError as error:
            return SourceError(f"{shortened(site)}/robots.txt could not be read: {error.detail}", remedy=remedy)
        if page.status >= 500 or page.status == 429:
            return SourceError(f"{shortened(site)}/robots.txt answered {page.status}.", remedy=remedy)
        text = page.data[:MAX_READ_BYTES].decode("utf-8-sig", "replace") if page.status == 200 else ""
        rules = Protego.parse(text)
        delay = rules.crawl_delay(ROBOT_NAME)
        if delay:
            self._slow_down(site, min(float(delay), MAX_CRAWL_DELAY_SECONDS))
        return rules

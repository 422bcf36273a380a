"""Embedders other than the configured one, for collections that were made with them."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from rag.errors import Unavailable
from rag.ports import Embedder

log = logging.getLogger(__name__)

_MOST = 2  # that stay loaded beside the configured one; each is some hundred megabytes


def _none(spec: str) -> Embedder:
    raise Unavailable(f"There is no way to load the embedder {spec}.")


class Embedders:
    """Opened when they are needed, by what loads them (`Embedder.spec`); the latest used stay. Thread-safe."""

    def __init__(self, load: Callable[[str], Embedder] = _none, *, most: int = _MOST) -> None:
        self._load = load
        self._most = most
        self._loaded: OrderedDict[str, Embedder] = OrderedDict()  # by identity, latest use last
        self._lock = threading.Lock()

    def known(self, identity: str) -> Embedder | None:
        """The embedder of this identity, where it was opened before."""
        with self._lock:
            if identity in self._loaded:
                self._loaded.move_to_end(identity)
            return self._loaded.get(identity)

    def open(self, spec: str) -> Embedder:
        """What this loads today, whatever its identity. Raises Unavailable."""
        embedder = self._load(spec)
        identity = embedder.identity  # reads the files that make it, so a spec that leads nowhere is known now
        with self._lock:
            found = self._loaded.setdefault(identity, embedder)
            self._loaded.move_to_end(identity)
            while len(self._loaded) > self._most:
                gone, _ = self._loaded.popitem(last=False)
                log.info("The embedder %s is let go of: others were used since.", gone)
        return found

"""Folders that are watched: when something in one of them has changed and come to rest, its source is synced.

What an event says is not trusted any further than that: the sync lists the folder and finds out for itself. So lost
events, renames and events of other programs' leavings cost a listing at most, and nothing is ever missed for good.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.sources.folder import FolderSource
from rag.errors import AttestError, InvalidInput, NotFound
from rag.models import SourceRecord
from rag.ports import Source

if TYPE_CHECKING:
    from watchfiles import Change

log = logging.getLogger(__name__)

# watchfiles sleeps so long before it looks whether to stop (50 ms by default, which is twenty wakings a second).
_STEP_SECONDS = 0.5
_QUIET_SECONDS = 1.5  # without an event: a file that is being written slowly is left alone until it is at rest
_RESTLESS_SECONDS = 60.0  # a log that is written all the time must not keep the other files waiting
_POLL_SECONDS = 10.0
_LOOK_SECONDS = 5.0  # whether a folder that is away has come back
_TRY_AGAIN_SECONDS = 30.0


def watchable(source: Source, *, name: str) -> FolderSource:
    """The source, if it is one that can be watched. Raises InvalidInput."""
    if not isinstance(source, FolderSource):
        raise InvalidInput(
            f"“{name}” is no folder, and only folders can be watched.",
            remedy="Give it a schedule instead: refresh, for example 15m.",
        )
    if source.folder is None:
        raise InvalidInput(
            f"“{name}” is a single file, and only folders can be watched.",
            remedy="Give the folder that it lies in, with the file's name under `include`; or a schedule: refresh.",
        )
    return source


class Watchers:
    """Watches the folders of sources, each in a thread of its own, so that a disk that hangs holds up no other.

    `open_folder` gives a source's folder, or raises AttestError where it cannot be watched (now); NotFound ends the
    watching. `changed` is called with the source's id. Nothing under `ignore` counts: a sync that writes into the
    folder it watches would have no end.
    """

    def __init__(
        self, *, open_folder: Callable[[str], FolderSource], changed: Callable[[str], None], ignore: Path
    ) -> None:
        self._open_folder = open_folder
        self._changed = changed
        self._ignore = Path(os.path.realpath(ignore))
        self._lock = threading.Lock()
        self._closed = False
        self._watchers: dict[str, _Watcher] = {}

    def follow(self, sources: Sequence[SourceRecord]) -> None:
        """These are all sources that there are now. A folder that did not change is watched on."""
        wanted = {source.id: source for source in sources if source.watch}
        with self._lock:
            if self._closed:
                return
            for source_id, watcher in list(self._watchers.items()):
                source = wanted.get(source_id)
                if source is None or dict(source.config) != watcher.config:
                    watcher.stop.set()
                    del self._watchers[source_id]
            for source in wanted.values():
                if source.id not in self._watchers:
                    self._watchers[source.id] = _Watcher(source, self._open_folder, self._changed, self._ignore)

    def state(self, source_id: str) -> str | None:
        """How it goes, in words; None where nothing is watched."""
        with self._lock:
            watcher = self._watchers.get(source_id)
        return watcher.state if watcher is not None else None

    def close(self, *, patience_seconds: float = 2.0) -> None:
        """Within a step of watchfiles, half a second; a disk that hangs is not waited for."""
        with self._lock:
            self._closed = True
            watchers = list(self._watchers.values())
            self._watchers = {}
        for watcher in watchers:
            watcher.stop.set()
        end = time.monotonic() + patience_seconds
        for watcher in watchers:
            watcher.thread.join(max(0.0, end - time.monotonic()))


class _Watcher:
    """One folder: found, watched until it goes away, found again."""

    def __init__(
        self,
        source: SourceRecord,
        open_folder: Callable[[str], FolderSource],
        changed: Callable[[str], None],
        ignore: Path,
    ) -> None:
        self.config: dict[str, Any] = dict(source.config)
        self.state = "starting"
        self.stop = threading.Event()
        self._source_id, self._name = source.id, source.name
        self._open_folder, self._changed, self._ignore = open_folder, changed, ignore
        self._polling: str | None = None  # why events are not to be had
        self._changed_at: float | None = None  # monotonic; the first and the last change that no sync has begun for
        self._rests_since = 0.0
        self.thread = threading.Thread(target=self._run, name=f"watch-{source.id}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.stop.is_set():
            try:
                source = self._open_folder(self._source_id)
                folder = watchable(source, name=self._name).folder
                assert folder is not None
                if not any(folder.iterdir()):
                    # A disk that is not mounted leaves an empty folder, and nobody wants that synced.
                    raise InvalidInput(
                        f"The folder {folder.name} is empty.", remedy="It is watched when something lies in it."
                    )
                identity = _identity(folder)
            except NotFound:
                return  # the source was deleted
            except (AttestError, OSError) as problem:
                self._wait_for_folder(problem)
                continue
            self._watch(source, folder, identity)

    def _wait_for_folder(self, problem: Exception) -> None:
        state = f"waiting for the folder: {problem}"
        if self.state != state:
            log.warning("“%s” waits for its folder, every %g s: %s", self._name, _LOOK_SECONDS, problem)
        self.state, self._polling = state, None
        self.stop.wait(_LOOK_SECONDS)

    def _watch(self, source: FolderSource, folder: Path, identity: tuple[int, int]) -> None:
        """Until the folder goes away, events fail, or the stop."""
        from watchfiles import watch

        quiet_seconds = _QUIET_SECONDS + (_POLL_SECONDS if self._polling else 0.0)
        self._note_change()  # whatever happened before somebody watched
        try:
            batches = watch(
                folder, watch_filter=None, step=round(_STEP_SECONDS * 1000), rust_timeout=round(quiet_seconds * 1000),
                yield_on_timeout=True, stop_event=self.stop, force_polling=True if self._polling else None,
                poll_delay_ms=round(_POLL_SECONDS * 1000), ignore_permission_denied=True,
            )  # fmt: skip
            with closing(batches):
                for changes in batches:
                    self._say_that_it_watches()
                    if _identity(folder) != identity:
                        raise FileNotFoundError(2, "another one is there now")
                    if self._concerns(changes, source):
                        self._note_change()
                    self._sync_if_at_rest(quiet_seconds)
        except FileNotFoundError as problem:
            if not self.stop.is_set():
                log.warning("The folder of “%s” went away (%s)", self._name, problem.strerror)
                self.state, self._polling = "starting", None
                self.stop.wait(_STEP_SECONDS)
        except (OSError, RuntimeError) as problem:  # watchfiles' own error is a RuntimeError
            self._events_failed(problem)

    def _say_that_it_watches(self) -> None:
        state = f"polling every {_POLL_SECONDS:g} s: {self._polling}" if self._polling else "watching"
        if self.state != state:
            log.info("“%s”: %s", self._name, state)
            self.state = state

    def _events_failed(self, problem: Exception) -> None:
        if "Unable to decode path" in str(problem):
            # watchfiles 1.3 gives up at a file name that is not UTF-8; our listing has no trouble with it.
            self.stop.wait(_QUIET_SECONDS)
        elif self._polling is None:
            self._polling = f"the system gives no file events ({problem})"
            log.warning("“%s”: %s. Its folder is listed every %g s instead.", self._name, self._polling, _POLL_SECONDS)
        else:
            log.warning("The folder of “%s” cannot be watched: %s", self._name, problem)
            self.state = f"failing, tried again: {problem}"
            self.stop.wait(_TRY_AGAIN_SECONDS)

    def _concerns(self, changes: Iterable[tuple[Change, str]], source: FolderSource) -> bool:
        from watchfiles import Change

        for kind, name in changes:
            path = Path(name)
            # That a folder changed is told once more by what changed in it, if that concerns anybody.
            in_passing = kind is Change.modified and path.is_dir()
            if not in_passing and not path.is_relative_to(self._ignore) and source.may_list(path):
                return True
        return False

    def _note_change(self) -> None:
        self._rests_since = time.monotonic()
        if self._changed_at is None:
            self._changed_at = self._rests_since

    def _sync_if_at_rest(self, quiet_seconds: float) -> None:
        at = time.monotonic()
        if self._changed_at is None or self.stop.is_set():
            return
        # A timeout that is a moment short of itself must not cost another whole one.
        if at - self._rests_since < quiet_seconds * 0.9 and at - self._changed_at < _RESTLESS_SECONDS:
            return
        try:
            self._changed(self._source_id)
        except NotFound:
            self.stop.set()  # the source was deleted
        except AttestError as problem:
            log.warning("“%s” changed, and its sync could not begin: %s", self._name, problem)
            self._rests_since = self._changed_at = at + _TRY_AGAIN_SECONDS
        except Exception:  # a thread has nobody above it, and a disk that is full now will not stay so
            log.exception("“%s” changed, and its sync could not begin; tried again", self._name)
            self._rests_since = self._changed_at = at + _TRY_AGAIN_SECONDS
        else:
            self._changed_at = None


def _identity(folder: Path) -> tuple[int, int]:
    """Another one at the same path means that a disk was mounted or unmounted, or the folder replaced."""
    found = folder.stat()
    return found.st_dev, found.st_ino

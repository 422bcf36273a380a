"""Every command speaks to the service over HTTP: to the one that runs, or to one that lives as long as the command."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from rag.errors import AttestError, FolderInUse, InvalidInput, NotFound, Unavailable
from rag.settings import Settings
from rag.storage.owner import find_owner

if TYPE_CHECKING:
    from app.server import Background

_PATIENCE_SECONDS = 20.0  # with an owner that does not listen yet, or is just leaving
_READY_SECONDS = 60.0
_CANCEL_SECONDS = 60.0  # a job stops within a second, or when a batch that is being written is whole
_HINT_AFTER_SECONDS = 1.5
_LOOK_SECONDS = 0.3
# A question may wait for a model to load and to write; a plan may walk a whole web site.
_TIMEOUT = httpx.Timeout(600.0, connect=5.0)

FINISHED = frozenset({"succeeded", "partial", "failed", "cancelled"})

Json = dict[str, Any]


class Refused(AttestError):
    """What the service answered instead, with the words of its problem."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(str(body.get("detail") or f"The service answered {status}."), remedy=body.get("remedy") or "")
        self.status = status
        self.code = str(body.get("type", "")).rpartition("/")[2] or "error"


class Client:
    """The service that owns the data folder. Where none runs, this process is it until `close`.

    `working`: such a service of our own attaches everything and takes up old jobs at once, not when it is needed.
    """

    def __init__(
        self, settings: Settings, *, working: bool = False, hint: Callable[[str], None] = lambda _text: None
    ) -> None:
        self._settings = settings
        self.hint = hint
        self._working = working
        self._server: Background | None = None
        self._http = self._connect()

    @property
    def is_own(self) -> bool:
        """Whether the service lives in this process."""
        return self._server is not None

    @property
    def url(self) -> str:
        return str(self._http.base_url).rstrip("/")

    def close(self) -> None:
        self._http.close()
        if self._server is not None:
            self._server.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # ── calls ─────────────────────────────────────────────────────────────────────────────────

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Any = None) -> Any:
        return self.call("POST", path, json=body)

    def delete(self, path: str) -> None:
        self.call("DELETE", path)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of the response. Raises Refused for a problem, Unavailable where the service is lost.

        A service that goes away is followed to its successor, as far as asking again cannot do a thing twice.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError as problem:
                again = method == "GET" or isinstance(problem, httpx.ConnectError)
                self._reconnect(problem, again=again and time.monotonic() < deadline)
            else:
                return _content(response)

    def stream(self, path: str, body: Any) -> Iterator[tuple[str, Any]]:
        """Server-sent events of a POST, as (event, data). A problem before the first is raised."""
        try:
            with self._http.stream("POST", path, json=body) as response:
                if response.status_code >= 400:
                    response.read()
                    _content(response)
                yield from _events(response.iter_lines())
        except httpx.TransportError as problem:
            raise _lost(problem) from problem

    def pages(self, path: str, **query: Any) -> Iterator[Json]:
        """Every entry of a list, page after page."""
        cursor: str | None = None
        while True:
            page = self.get(path, cursor=cursor, **query)
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    # ── what commands share ───────────────────────────────────────────────────────────────────

    def collection(self, name: str, *, create: bool = False) -> Json:
        """By name or id. Ids are what paths are made of: a name may hold a slash."""
        for item in self.pages("/v1/collections"):
            if name in (item["name"], item["id"]):
                return item
        if not create:
            raise NotFound(
                f"There is no collection “{name}”.",
                remedy=f"attest collections list shows what there is; attest collections create “{name}” makes it.",
            )
        made: Json = self.post("/v1/collections", {"name": name})
        return made

    def sources(self, *, collection: str | None) -> list[Json]:
        """Of one collection, or of all, each with the `collection` it belongs to."""
        chosen = [self.collection(collection)] if collection else list(self.pages("/v1/collections"))
        return [
            {**source, "collection": item["name"]}
            for item in chosen
            for source in self.pages(f"/v1/collections/{part(item['id'])}/sources")
        ]

    def follow(self, job_ids: Iterable[str], moved: Callable[[Json], None]) -> list[Json]:
        """The jobs when all of them are finished; `moved` hears of each whenever somebody looks."""
        self._working = True  # should the service go away, its successor takes the jobs up
        ids = list(dict.fromkeys(job_ids))
        finished: dict[str, Json] = {}
        while True:
            # The list leaves the items out, which a job of ten thousand documents has many of.
            listed = {job["id"]: job for job in self.get("/v1/jobs", limit=100)["data"]}
            for job_id in ids:
                if job_id in finished:
                    continue
                job = listed.get(job_id) or self.get(f"/v1/jobs/{part(job_id)}")
                moved(job)
                if job["state"] in FINISHED:
                    finished[job_id] = self.get(f"/v1/jobs/{part(job_id)}")
            if len(finished) == len(ids):
                return [finished[job_id] for job_id in ids]
            time.sleep(_LOOK_SECONDS)

    def wait_until_ready(self) -> None:
        """Until all parts of a service that has just started say how they are, or a minute has passed."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            parts = self._http.get("/readyz").json()["parts"]
            if not any(word in state for state in parts.values() for word in ("attach", "loading")):
                return
            time.sleep(_LOOK_SECONDS)

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Ask the jobs to stop, and wait a while until they have."""
        ids = list(dict.fromkeys(job_ids))
        for job_id in ids:
            self.post(f"/v1/jobs/{part(job_id)}/cancel")
        deadline = time.monotonic() + _CANCEL_SECONDS
        while ids and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            ids = [job_id for job_id in ids if self.get(f"/v1/jobs/{part(job_id)}")["state"] not in FINISHED]

    # ── finding the service, or being it ──────────────────────────────────────────────────────

    def _connect(self) -> httpx.Client:
        began, hinted = time.monotonic(), False
        while True:
            owner = find_owner(self._settings.data_dir)
            if owner is not None:
                return _http(*owner)
            try:
                return self._own()
            except FolderInUse:  # it does not listen yet, or another command was a moment quicker
                waited = time.monotonic() - began
                if waited > _PATIENCE_SECONDS:
                    raise
                if waited > _HINT_AFTER_SECONDS and not hinted:
                    self.hint("Waiting for another attest process, which is starting or stopping.")
                    hinted = True
                time.sleep(0.2)

    def _own(self) -> httpx.Client:
        from app.server import Background  # the whole service: nobody needs it who finds one running
        from app.service import Service

        service = Service(self._settings, warm=self._working, stays=False)
        self._server = Background(service)
        return _http(self._server.url, service.token)

    def _reconnect(self, problem: httpx.TransportError, *, again: bool) -> None:
        if not again or self.is_own:
            raise _lost(problem) from problem
        self._http.close()
        time.sleep(0.2)
        self._http = self._connect()


@contextmanager
def interruptible(client: Client, job_ids: Iterable[str]) -> Iterator[None]:
    """Ctrl-C cancels these jobs, waits for them, and goes on upwards."""
    try:
        yield
    except KeyboardInterrupt:
        client.hint("Stopping when the documents that are being written are whole.")
        client.cancel(job_ids)
        raise


def part(text: str) -> str:
    """As one part of a path."""
    return quote(text, safe="")


def _http(url: str, token: str) -> httpx.Client:
    # No proxy and no netrc of the environment: this is a process of the same user on the same machine.
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=_TIMEOUT, trust_env=False)


def _content(response: httpx.Response) -> Any:
    try:
        content = response.json() if response.content else None
    except ValueError:
        content = None
    if response.status_code >= 400:
        raise Refused(response.status_code, content if isinstance(content, dict) else {})
    return content


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    event, data = "message", []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif not line and data:
            content = json.loads("\n".join(data))
            if event == "error":
                raise Refused(int(content.get("status", 500)), content)
            yield event, content
            event, data = "message", []


def _lost(problem: httpx.TransportError) -> AttestError:
    if isinstance(problem, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return InvalidInput(f"The service's address cannot be used: {problem}.")
    if isinstance(problem, httpx.TimeoutException):
        return Unavailable("The service did not answer in time.", remedy="Try again, or restart it.")
    return Unavailable("The service went away before it had answered.", remedy="Try again; its log may say why.")

"""A server that speaks OpenAI's chat protocol over real sockets and misbehaves on demand. For tests.

    with StubOpenAI(Reply("Paris [1].")) as server:
        model = open_chat_model("openai:stub", base_url=server.base_url, ...)

Replies are used up one per request; the last one stays. `server.requests` holds what was asked, `server.hung_up` is set
when a client went away before its reply was complete.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """One answer of the server. `text` may be a function of the messages it was asked with."""

    text: str | Callable[[list[Json]], str] = "Hello."
    pieces: Sequence[str] | None = None  # the text as it is cut into chunks; by words when not given
    status: int = 200
    error: str = ""  # the message of a status that is not 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # sent as it is instead of a reply
    hang_after: int | None = None  # chunks, then silence
    hang_before_headers: bool = False
    keep_alive_after: int | None = None  # chunks, then nothing but comments, ten a second
    cut_after: int | None = None  # chunks, then the connection breaks
    error_after: int | None = None  # chunks, then an error event in the stream
    end_after: int | None = None  # chunks, then a tidy end without finish reason and [DONE]
    delay_seconds: float = 0.0  # before each chunk
    prompt_tokens: int | None = None  # reported instead of what was counted
    usage: bool = True
    finish_reason: str = "stop"
    reasoning: str = ""  # sent first, as `reasoning_content`


class StubOpenAI:
    """The server, on a free port of the loopback interface while in a `with` block."""

    def __init__(self, *replies: Reply, paths: Mapping[str, Json] | None = None, model: str = "stub") -> None:
        self.requests: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.asked_paths: list[str] = []
        self.hung_up = threading.Event()
        self.closing = threading.Event()
        self._replies = list(replies) or [Reply()]
        self._paths = {"/v1/models": {"object": "list", "data": [{"id": model, "object": "model"}]}, **(paths or {})}
        self._lock = threading.Lock()
        self._server = _QuietServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def then(self, *replies: Reply) -> None:
        """From now on these, whatever was planned before."""
        with self._lock:
            self._replies = list(replies)

    def next_reply(self, asked: Json, headers: Mapping[str, str]) -> Reply:
        with self._lock:
            self.requests.append(asked)
            self.headers.append({name.lower(): value for name, value in headers.items()})
            return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    def page(self, path: str) -> Json | None:
        with self._lock:
            self.asked_paths.append(path)
            return self._paths.get(path)

    def __enter__(self) -> StubOpenAI:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what many tests are about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # the base class's own types


def count_tokens(text: str) -> int:
    """About what a common tokenizer makes of it."""
    return len(re.findall(r"[A-Za-z]+|[0-9]{1,3}|[^\sA-Za-z0-9]", text))


def _handler(stub: StubOpenAI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it so
            pass

        def do_GET(self) -> None:
            self._page()

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
            if not self.path.endswith("/chat/completions"):
                self._page()
                return
            reply = stub.next_reply(asked, dict(self.headers))
            try:
                self._answer(reply, asked)
            except (BrokenPipeError, ConnectionResetError):
                stub.hung_up.set()
                self.close_connection = True

        def _page(self) -> None:
            page = stub.page(self.path)
            self._send(200 if page is not None else 404, json.dumps(page or {"error": {"message": "no such path"}}))

        def _answer(self, reply: Reply, asked: Json) -> None:
            if reply.hang_before_headers:
                self._hang()
            elif reply.body is not None:
                self._send(reply.status, reply.body, reply.headers)
            elif reply.status != 200:
                error = {"error": {"message": reply.error or "a planned error", "type": "stub", "code": None}}
                self._send(reply.status, json.dumps(error), reply.headers)
            elif asked.get("stream"):
                self._stream(reply, asked)
            else:
                self._send(200, json.dumps(self._whole(reply, asked)), reply.headers)

        def _stream(self, reply: Reply, asked: Json) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self._event({"delta": {"role": "assistant", "content": ""}})
            if reply.reasoning:
                self._event({"delta": {"reasoning_content": reply.reasoning}})
            text = _text(reply, asked)
            for number, piece in enumerate(reply.pieces or re.findall(r"\S+\s*|\s+|[\u4e00-\u9fff]", text)):
                if self._misbehave(reply, number):
                    return
                time.sleep(reply.delay_seconds)
                self._event({"delta": {"content": piece}})
            if self._misbehave(reply, len(reply.pieces or text.split())):
                return
            self._event({"delta": {}, "finish_reason": reply.finish_reason})
            if reply.usage and asked.get("stream_options", {}).get("include_usage"):
                self._data(json.dumps({**_frame(), "choices": [], "usage": _usage(reply, asked, text)}))
            self._data("[DONE]")
            self._chunk(b"")

        def _misbehave(self, reply: Reply, number: int) -> bool:
            """Whether the stream ends here, in the way that was asked for."""
            if number == reply.hang_after:
                self._hang()
            elif number == reply.keep_alive_after:
                while not stub.closing.wait(0.1):
                    self._chunk(b": still here\n\n")
            elif number == reply.error_after:
                self._data(json.dumps({"error": {"message": "the engine died", "type": "server_error", "code": 500}}))
                self._chunk(b"")
            elif number == reply.end_after:
                self._chunk(b"")
            elif number == reply.cut_after:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            else:
                return False
            return True

        def _hang(self) -> None:
            """Silence until the client goes away or the test ends."""
            self.close_connection = True
            while not stub.closing.is_set():
                readable, _, _ = select.select([self.connection], [], [], 0.02)
                if readable and not self.connection.recv(1, socket.MSG_PEEK):
                    stub.hung_up.set()
                    return

        def _whole(self, reply: Reply, asked: Json) -> Json:
            text = _text(reply, asked)
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": reply.finish_reason,
            }
            return {**_frame("chat.completion"), "choices": [choice], "usage": _usage(reply, asked, text)}

        def _event(self, choice: Json) -> None:
            self._data(json.dumps({**_frame(), "choices": [{"index": 0, "finish_reason": None, **choice}]}))

        def _data(self, text: str) -> None:
            self._chunk(f"data: {text}\n\n".encode())

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def _send(self, status: int, body: str | bytes, headers: Mapping[str, str] | None = None) -> None:
            data = body.encode() if isinstance(body, str) else body
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def _frame(kind: str = "chat.completion.chunk") -> Json:
    return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": "stub"}


def _text(reply: Reply, asked: Json) -> str:
    if reply.pieces is not None:
        return "".join(reply.pieces)
    return reply.text if isinstance(reply.text, str) else reply.text(asked.get("messages", []))


def _usage(reply: Reply, asked: Json, text: str) -> Json:
    given = reply.prompt_tokens
    if given is None:
        given = sum(count_tokens(str(message.get("content"))) + 4 for message in asked.get("messages", []))
    written = count_tokens(text)
    return {"prompt_tokens": given, "completion_tokens": written, "total_tokens": given + written}

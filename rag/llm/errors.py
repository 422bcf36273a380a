"""What went wrong with a language model, whichever library said so, as one of our ModelErrors.

Every provider's package has error classes of its own, and the HTTP library below them changes too (openai 3 moved from
httpx to httpx2). What they share is a status code somewhere and honest class names, so those are what is read here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rag.errors import ModelError, ModelRejected, ModelTimeout, ModelUnavailable

LONGEST_PAUSE_SECONDS = 10.0  # a server that asks for more patience than this is taken as not available

_LONGEST_QUOTE = 300
_LOOKS_LIKE_A_KEY = re.compile(r"(?i)(?:\bsk-|\bbearer\s+)[^\s\"',}]{6,}")
_OVERFLOW = re.compile(r"(?i)context[ _](?:length|window|size)|n_ctx|prompt is too long|too many (?:input )?tokens")
_STATED_WINDOW = re.compile(
    r"(?i)(?:maximum context length|context[ _](?:length|window|size)|n_ctx)[^\d]{0,40}?(\d{3,7})"
)
_CONNECTION_NAMES = ("Connection", "ConnectError", "RemoteProtocol", "NetworkError", "ReadError", "WriteError")


class CutShort(Exception):
    """A reply that ended without the sign that it was complete. It leaves this door as a ModelUnavailable."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What to raise, and whether the same request may succeed a little later."""

    error: ModelError
    retryable: bool = False
    retry_after_seconds: float | None = None
    stated_window: int | None = None  # the server's context length, where the refusal names it


def understand(error: BaseException, *, model: str, secret: str | None) -> Failure:
    """The failure behind a library's exception. `secret` never appears in it."""
    chain = list(_chain(error))
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    said = _quote(chain, secret)
    if any("Timeout" in name for name in names):
        return Failure(
            ModelTimeout(
                f"The language model {model} did not answer in time.", remedy="Raise ATTEST_LLM_TIMEOUT_SECONDS."
            )
        )
    if "CutShort" in names or "No generation chunks" in said:  # LangChain's words for a stream with nothing in it
        return _cut(model, said)
    status = next((code for code in map(_status, chain) if code is not None), None)
    if status is not None:
        return _by_status(status, chain, model, said)
    if any(part in name for name in names for part in _CONNECTION_NAMES) or isinstance(error, OSError):
        detail = f"The language model {model} cannot be reached, or hung up: {said}"
        return Failure(ModelUnavailable(detail, remedy="Check ATTEST_LLM_BASE_URL and that its server runs."), True)
    if _OVERFLOW.search(said):
        return _overflow(model, said)
    if names & {"JSONDecodeError", "UnicodeDecodeError", "APIResponseValidationError"}:
        detail = f"The server of the language model {model} answered with something that is not its protocol: {said}"
        return Failure(
            ModelUnavailable(detail, remedy="Check that ATTEST_LLM_BASE_URL ends where its API begins (/v1).")
        )
    if "APIError" in names:  # an error event inside a stream that had begun
        return Failure(ModelUnavailable(f"The language model {model} broke off its reply: {said}"), True)
    return Failure(ModelError(f"The language model {model} failed: {type(error).__name__}: {said}"))


def pause_seconds(attempt: int, retry_after_seconds: float | None) -> float | None:
    """How long to wait before the next attempt: what the server asks for, else 0.5 s doubling; None if too long."""
    if retry_after_seconds is not None:
        return retry_after_seconds if retry_after_seconds <= LONGEST_PAUSE_SECONDS else None
    # Jitter, so that questions that failed together do not come back together.
    return float(min(0.5 * 2**attempt, LONGEST_PAUSE_SECONDS)) * random.uniform(0.75, 1.0)  # noqa: S311 - no secret


def redact(text: str, secret: str | None) -> str:
    """The text without the key, and without anything that looks like one: servers echo keys in their refusals."""
    if secret:
        text = text.replace(secret, "***")
    return _LOOKS_LIKE_A_KEY.sub("***", text)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int) and status >= 300:
            return status
    body = getattr(error, "body", None)  # an error event inside a stream: llama.cpp puts the status into it
    code = body.get("code") if isinstance(body, dict) else None
    return code if isinstance(code, int) and 300 <= code < 600 else None


def _by_status(status: int, chain: list[BaseException], model: str, said: str) -> Failure:
    if status == 429 and "insufficient_quota" not in said:
        detail = f"The server of the language model {model} is asked too often (429): {said}"
        return Failure(ModelUnavailable(detail, remedy="Try again later."), True, _retry_after(chain))
    if status in (408, 409, 425) or status >= 500:
        detail = f"The server of the language model {model} is in trouble ({status}): {said}"
        return Failure(ModelUnavailable(detail, remedy="Look at that server's log."), True, _retry_after(chain))
    if status in (400, 413, 422) and _OVERFLOW.search(said):
        return _overflow(model, said)
    remedy = {
        401: "Check ATTEST_LLM_API_KEY.",
        402: "Check the account behind ATTEST_LLM_API_KEY.",
        403: "Check what ATTEST_LLM_API_KEY may use.",
        404: "Check the model's name in ATTEST_LLM and that ATTEST_LLM_BASE_URL ends where its API begins (/v1).",
        429: "Check the account behind ATTEST_LLM_API_KEY.",
    }.get(status, "Check ATTEST_LLM_BASE_URL." if status < 400 else "")
    return Failure(ModelRejected(f"The language model {model} refused the request ({status}): {said}", remedy=remedy))


def _overflow(model: str, said: str) -> Failure:
    stated = _STATED_WINDOW.search(said)
    error = ModelRejected(
        f"The prompt was too long for the language model {model}: {said}",
        remedy="Set ATTEST_LLM_WINDOW to the context length that its server runs with.",
    )
    return Failure(error, stated_window=int(stated.group(1)) if stated else None)


def _cut(model: str, said: str) -> Failure:
    # llama-cpp-python answers a prompt longer than its window with 200 and an empty stream.
    error = ModelUnavailable(
        f"The reply of the language model {model} was cut off: {said}",
        remedy="Look at its server's log; a prompt longer than its context length is one cause (ATTEST_LLM_WINDOW).",
    )
    return Failure(error, True)


def _retry_after(chain: list[BaseException]) -> float | None:
    for error in chain:
        headers = getattr(getattr(error, "response", None), "headers", None)
        if headers is None:
            continue
        for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            try:
                return max(0.0, float(headers[name]) * unit)
            except (KeyError, ValueError):  # absent, or a date: then our own back-off is as good
                continue
    return None


def _quote(chain: list[BaseException], secret: str | None) -> str:
    """The server's own words where there are some, else the exception's, on one short line."""
    for error in chain:
        body = getattr(error, "body", None)
        if isinstance(body, dict):
            nested = body.get("error")
            inner = nested if isinstance(nested, dict) else body
            words = inner.get("message") or body.get("detail")
            if words:
                return _shorten(redact(f"{words} ({inner['code']})" if inner.get("code") else str(words), secret))
    return _shorten(redact(str(chain[0]) or type(chain[0]).__name__, secret))


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"

"""One table from exception to status, and RFC 9457 problems made of both."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.admission import RETRY_AFTER_SECONDS, Overloaded
from rag.errors import (
    AttestError,
    Conflict,
    DiskFull,
    DocumentError,
    Gone,
    InvalidFilter,
    InvalidInput,
    ModelError,
    NotAllowed,
    NotFound,
    SourceError,
    Unavailable,
)

log = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 5  # for a part that is not there
PROBLEM_TYPE = "application/problem+json"

# The first row that matches counts, so children stand before their parents.
_STATUS: tuple[tuple[type[AttestError], int, str], ...] = (
    (NotFound, 404, "Not found"),
    (Gone, 410, "No longer kept"),
    (Conflict, 409, "In conflict with what is stored"),
    (InvalidInput, 422, "Cannot be used"),
    (NotAllowed, 403, "Not allowed"),
    (DiskFull, 507, "The disk is full"),
    (Unavailable, 503, "Not available now"),
    (DocumentError, 422, "The document cannot be read"),
    (SourceError, 502, "The source cannot be reached"),
    (ModelError, 502, "The language model did not answer"),
    (AttestError, 500, "Something went wrong"),
)


def problem(
    status: int, code: str, title: str, detail: str, *, remedy: str = "", errors: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    """The body of a problem. `type` is stable; `remedy` says what to do."""
    body: dict[str, Any] = {"type": f"/problems/{code}", "title": title, "status": status, "detail": detail}
    if remedy:
        body["remedy"] = remedy
    if errors:
        body["errors"] = errors
    return body


def problem_of(error: AttestError) -> dict[str, Any]:
    status, title = next((status, title) for kind, status, title in _STATUS if isinstance(error, kind))
    errors = [{"pointer": error.pointer, "detail": error.detail}] if isinstance(error, InvalidFilter) else None
    return problem(status, error.code, title, error.detail, remedy=error.remedy, errors=errors)


def respond(body: dict[str, Any], headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(body, status_code=body["status"], media_type=PROBLEM_TYPE, headers=dict(headers or {}))


Handler = Callable[[Request, Any], Awaitable[JSONResponse]]


def add_error_handlers(app: FastAPI) -> None:
    async def attest(_request: Request, error: AttestError) -> JSONResponse:
        seconds = RETRY_AFTER_SECONDS if isinstance(error, Overloaded) else _RETRY_AFTER_SECONDS
        retry = {"Retry-After": str(seconds)} if isinstance(error, Unavailable) else None
        return respond(problem_of(error), retry)

    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [{"pointer": _pointer(item["loc"]), "detail": item["msg"]} for item in error.errors()]
        first = f"{errors[0]['pointer'] or 'the body'}: {errors[0]['detail']}" if errors else "It cannot be read."
        detail = f"The request does not have the form that this call wants. {first}."
        return respond(
            problem(422, "validation-error", "Cannot be used", detail, remedy="/docs shows it.", errors=errors)
        )

    async def http(request: Request, error: HTTPException) -> JSONResponse:
        # The status alone makes the type: a parser's own sentence may change with its next release.
        title = HTTPStatus(error.status_code).phrase
        detail = f"{request.method} {request.url.path}: {str(error.detail).rstrip('.')}."
        return respond(problem(error.status_code, title.lower().replace(" ", "-"), title, detail), error.headers)

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.exception("%s %s failed", request.method, request.url.path, exc_info=error)
        detail = "Something went wrong that was not foreseen; the log of the service has the details."
        return respond(problem(500, "internal", "Something went wrong", detail, remedy="Try again, or report it."))

    app.add_exception_handler(AttestError, attest)  # type: ignore[arg-type]  # Starlette's handlers take any Exception
    app.add_exception_handler(RequestValidationError, invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, http)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, unexpected)


def _pointer(location: tuple[int | str, ...]) -> str:
    """A JSON Pointer into the body, or the name of a parameter."""
    parts = [str(part) for part in location if part != "body"]
    return "/" + "/".join(parts) if parts else ""

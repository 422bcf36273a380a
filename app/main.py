"""The web service: routes, guards and error handlers around one Service."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from app.admission import Admission
from app.errors import add_error_handlers, respond
from app.idempotency import Idempotency, document_keys
from app.pages import add_pages
from app.routes import ask, backups, collections, doctor, documents, feedback, gaps, jobs, ranking, sources
from app.schemas.questions import ANSWER_EXAMPLE
from app.security import BodyTooLarge, Guard, body_too_large
from app.service import Service
from rag.errors import InvalidInput
from rag.settings import Settings

log = logging.getLogger(__name__)

VERSION = "0.3.0"
_MIB = 1024 * 1024

_DESCRIPTION = """Answers from your PDFs, web pages and databases, in English and Chinese, every sentence with a source
that can be checked.

Errors are `application/problem+json` (RFC 9457) with a stable `type`, a sentence, and a `remedy`. Lists are paged with
`cursor` and `next_cursor`. Long work is a job. Times are RFC 3339 in UTC."""


def create_app(service: Service) -> FastAPI:
    """The ASGI application. Starting it starts the service, stopping it closes the service."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(service.start)
        yield
        await run_in_threadpool(service.close)

    settings = service.settings
    app = FastAPI(
        title="Attest", version=VERSION, description=_DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    app.state.admission = Admission(at_once=settings.max_questions, wait_seconds=settings.question_wait_seconds)
    add_error_handlers(app)
    limit = settings.max_upload_mb * _MIB
    app.add_middleware(Idempotency, catalog=service.base.catalog, max_body_bytes=limit)
    app.add_middleware(  # added last, and so the first that a call comes to
        Guard,
        keys=_keys(service),
        key_needed=settings.admin_key is not None,
        hosts=settings.allowed_hosts.split(","),
        max_body_bytes=limit,
    )

    @app.exception_handler(BodyTooLarge)
    async def too_large(_request: Request, _error: BodyTooLarge) -> JSONResponse:
        return respond(body_too_large(limit))

    v1 = APIRouter(prefix="/v1")
    for part in (ask, feedback, gaps, collections, ranking, sources, documents, jobs, backups, doctor):
        v1.include_router(part.router)

    app.include_router(v1)

    # async: a route in a thread would wait behind forty slow answers, and this one must never wait behind work.
    @app.get("/healthz", tags=["service"])
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok", "version": VERSION}

    @app.get("/readyz", tags=["service"])
    async def readyz(response: Response) -> dict[str, Any]:
        """Questions can be answered. 503 until then; Chroma may still be attaching, search is exact meanwhile."""
        ready = service.is_ready()
        response.status_code = 200 if ready else 503
        return {"ready": ready, "parts": service.readiness()}

    add_pages(app)
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        # FastAPI leaves nulls out of examples, and an answer without `refusal` is not one.
        document = plain()
        document["components"]["schemas"]["AnswerOut"]["example"] = ANSWER_EXAMPLE
        document_keys(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    return app


def check_exposure(settings: Settings) -> None:
    """Raises InvalidInput for a service that would be open to the network without a key."""
    if not settings.is_loopback and settings.admin_key is None:
        raise InvalidInput(
            f"ATTEST_HOST is {settings.host}, where others can reach the service, and there is no ATTEST_ADMIN_KEY.",
            remedy="Set ATTEST_ADMIN_KEY to a long random text, or listen on 127.0.0.1.",
        )
    key = settings.admin_key.get_secret_value() if settings.admin_key else None
    if key is not None and len(key) < 16:
        raise InvalidInput(
            "ATTEST_ADMIN_KEY is shorter than 16 characters.",
            remedy="Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'.",
        )


def _keys(service: Service) -> list[str]:
    key = service.settings.admin_key
    return [service.token, *([key.get_secret_value()] if key else [])]

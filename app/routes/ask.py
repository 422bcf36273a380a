"""Questions."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from fastapi import APIRouter, Response

from app.dependencies import ServiceDep
from app.schemas import AnswerOut, AskRequest, CitationOut, HitOut, Hits, SearchRequest, SentenceOut
from app.streams import Frame, event_stream
from rag.answer import Assistant, Event, Final, Question, Retrieval, Said, Token
from rag.models import Turn

router = APIRouter(tags=["questions"])

_STREAM_DOC = (
    "With `stream: true`: server-sent events `retrieval` (the hits), `token` (provisional text), `sentence` (with its "
    "citations and their support), `final` (the whole answer, which alone counts), or `error`."
)


@router.post(
    "/ask", response_model=AnswerOut, description=f"Answer a question, every sentence with its source. {_STREAM_DOC}"
)
def ask(request: AskRequest, service: ServiceDep) -> Any:
    question = _question(request, service.settings.top_k)
    if request.stream:
        return event_stream(_frames(service.assistant, question))
    return AnswerOut.of(service.assistant.answer(question))


@router.post("/search", description="The passages that answer best to a question, with every arm's own score.")
def search(request: SearchRequest, service: ServiceDep, response: Response) -> Hits:
    found = service.assistant.search(_question(request, service.settings.top_k))
    response.headers["Cache-Control"] = "no-store"
    return Hits(hits=[HitOut.of(hit) for hit in found.hits], timings_ms=found.timings_ms)


def _question(request: SearchRequest, top_k: int) -> Question:
    names = [request.collection] if isinstance(request.collection, str) else request.collection or []
    history = [Turn(turn.role, turn.content) for turn in request.history] if isinstance(request, AskRequest) else []
    return Question(request.question, tuple(names), tuple(history), request.top_k or top_k)


def _frames(assistant: Assistant, question: Question) -> Generator[Frame, None, None]:
    events = assistant.stream(question)
    try:
        for event in events:
            yield _frame(event)
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()


def _frame(event: Event) -> Frame:
    match event:
        case Retrieval():
            hits = [HitOut.of(hit).model_dump(mode="json") for hit in event.hits]
            return "retrieval", {
                "standalone_question": event.standalone_question,
                "hits": hits,
                "timings_ms": event.timings_ms,
            }
        case Token():
            return "token", {"text": event.text}
        case Said():
            said = event.sentence
            sentence = SentenceOut(
                text=said.text, start=said.start, end=said.end, citations=list(said.citations), support=said.support
            )
            citations = [CitationOut.of(item).model_dump(mode="json") for item in event.citations]
            return "sentence", {**sentence.model_dump(mode="json"), "cited": citations}
        case Final():
            return "final", AnswerOut.of(event.answer).model_dump(mode="json")

"""Questions."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from fastapi import APIRouter, Response

from app.admission import OVERLOADED, Admitted
from app.dependencies import ServiceDep
from app.schemas.passages import PassageOut
from app.schemas.questions import (
    AnswerOut,
    AskRequest,
    CitationOut,
    ContextRequest,
    HitOut,
    Hits,
    KeptAnswerOut,
    SearchRequest,
    SentenceOut,
    ShortAnswerOut,
)
from app.service import Service
from app.streams import Frame, event_stream
from rag.answer import Final, Question, Retrieval, Said, Token
from rag.answering.evidence import evidence
from rag.catalog import answers
from rag.models import Turn
from rag.text.language import language_of

router = APIRouter(tags=["questions"])

_STREAM_DOC = (
    "With `stream: true`: server-sent events `retrieval` (the hits), `token` (provisional text), `sentence` (with its "
    "citations and their support), `final` (the whole answer, which alone counts), or `error`."
)


@router.post(
    "/ask",
    response_model=AnswerOut,
    responses=OVERLOADED,
    description=f"Answer a question, every sentence with its source. {_STREAM_DOC}",
)
def ask(request: AskRequest, service: ServiceDep, _admitted: Admitted) -> Any:
    question = _question(request, service.settings.top_k)
    if request.stream:
        return event_stream(_frames(service, question, keep=request.keep))
    answer = AnswerOut.of(service.assistant.answer(question))
    if request.keep:
        service.keep_answer(question.text, answer)
    return answer


@router.get("/answers/{answer_id}")
def get_answer(answer_id: str, service: ServiceDep) -> KeptAnswerOut:
    """An answer that was given before, as long as answers are kept; the versions that it cites are kept with it."""
    with service.base.catalog.read() as snapshot:
        kept = answers.get_answer(snapshot, answer_id)
    return KeptAnswerOut(
        id=kept.id, question=kept.question, answer=AnswerOut.model_validate(kept.answer), created_at=kept.created_at
    )


@router.post(
    "/search",
    responses=OVERLOADED,
    description="The passages that answer best to a question, with every arm's own score.",
)
def search(request: ContextRequest, service: ServiceDep, response: Response, _admitted: Admitted) -> Hits:
    question = _question(request, service.settings.top_k)
    found = service.assistant.search(question)
    response.headers["Cache-Control"] = "no-store"
    context = None
    if request.context_tokens is not None:
        context = service.assistant.context(
            found, tokens=request.context_tokens, language=language_of(question.text), wider=question.wider
        )
    return Hits(
        hits=[HitOut.of(hit) for hit in found.hits],
        evidence=round(evidence(found), 4),
        not_kept=found.not_kept,
        timings_ms=found.timings_ms,
        rewrites=list(found.rewrites),
        context=[PassageOut.of(passage) for passage in context.passages] if context else None,
    )


def _question(request: SearchRequest, top_k: int) -> Question:
    names = [request.collection] if isinstance(request.collection, str) else request.collection or []
    history = [Turn(turn.role, turn.content) for turn in request.history] if isinstance(request, AskRequest) else []
    return Question(
        request.question,
        tuple(names),
        tuple(history),
        request.top_k or top_k,
        as_of=request.moment(),
        filters=request.narrowed(),
        min_evidence=request.min_evidence if isinstance(request, AskRequest) else None,
        wider=request.top_k is None,
    )


def _frames(service: Service, question: Question, *, keep: bool) -> Generator[Frame, None, None]:
    events = service.assistant.stream(question)
    try:
        for event in events:
            if isinstance(event, Final):
                answer = AnswerOut.of(event.answer)
                if keep:
                    service.keep_answer(question.text, answer)  # first: who has read it may ask for it at once
                yield "final", answer.model_dump(mode="json")
            else:
                yield _frame(event)
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()


def _frame(event: Retrieval | Token | Said) -> Frame:
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
            short = ShortAnswerOut.of(event.short_answer)
            return "sentence", {
                **sentence.model_dump(mode="json"),
                "cited": citations,
                "short_answer": short.model_dump(mode="json") if short else None,
            }

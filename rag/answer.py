"""Question → answer, as a stream. The plain answer is the last event of the same stream.

retrieve → enough evidence? → context → the model, or the sentences themselves → each sentence checked → Answer.
A model that is down, slow or empty falls back to the sentences, and the answer says so (`degraded`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime

from rag import prompts
from rag.citations import Claim, claims
from rag.context import Context, pack
from rag.errors import ModelError, ModelSilent
from rag.evidence import ENOUGH, evidence, explain
from rag.extract import Extract, extract
from rag.filters import Filter
from rag.followup import needs_history, standalone
from rag.knowledge import KnowledgeBase
from rag.language import language_of
from rag.models import Answer, Citation, Hit, Passage, Refusal, Sentence, Support, Turn, Usage
from rag.ports import ChatModel
from rag.retrieve import Found, retrieve
from rag.vague import explain_vague, vague
from rag.verify import Evidence, best_evidence

EXTRACTIVE = "extractive"  # the name of the answerer that needs no model

_HISTORY_TURNS = 6  # that a model is shown
# Of the prompt's window, never more than this for passages: small models lose what stands in the middle of long ones.
_MOST_CONTEXT_TOKENS = 6_000


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    collections: tuple[str, ...] = ()  # none means all
    history: tuple[Turn, ...] = ()
    top_k: int = 8
    as_of: datetime | None = None  # what was active then, instead of now
    filters: Filter | None = None  # only documents of which this is true


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found, before anything is said."""

    standalone_question: str
    hits: tuple[Hit, ...]
    timings_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Token:
    """Provisional text, as a model writes it."""

    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence with its citations, provisional while a model is writing."""

    sentence: Sentence
    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True)
class Final:
    """The whole answer, which alone counts."""

    answer: Answer


Event = Retrieval | Token | Said | Final


class Assistant:
    """Answers from a knowledge base, with a language model or without. Thread-safe."""

    def __init__(
        self, base: KnowledgeBase, *, model: ChatModel | None, max_tokens: int = 512, enough_evidence: float = ENOUGH
    ) -> None:
        self._base = base
        self._model = model
        self._max_tokens = max_tokens
        self._enough_evidence = enough_evidence

    def answer(self, question: Question) -> Answer:
        for event in self.stream(question):
            if isinstance(event, Final):
                return event.answer
        raise AssertionError("a stream ends with its Final event")

    def search(self, question: Question) -> Found:
        collections = self._base.collections(question.collections)
        return retrieve(
            question.text,
            base=self._base,
            collections=collections,
            k=question.top_k,
            as_of=question.as_of,
            filters=question.filters,
        )

    def stream(self, question: Question) -> Iterator[Event]:
        """Retrieval, then Tokens and Said, then Final. Nothing is generated before the first event is taken."""
        started = time.perf_counter()
        text = self._standalone(question)
        found = self.search(replace(question, text=text))
        yield Retrieval(text, found.hits, found.timings_ms)
        draft = _Draft(
            standalone_question=text,
            language=language_of(question.text),
            as_of=question.as_of,
            not_kept=found.not_kept,
        )
        enough = evidence(found) >= self._enough_evidence
        if readings := vague(text, found, enough=enough):
            draft.text, draft.refusal = explain_vague(found, readings, language=draft.language)
        elif not enough:
            draft.refuse(found)
        elif self._model is None:
            yield from self._from_sentences(found, draft)
        else:
            yield from self._from_model(question, found, draft)
        draft.timings_ms = {**found.timings_ms, "total": round((time.perf_counter() - started) * 1000, 2)}
        yield Final(draft.finish())

    def _standalone(self, question: Question) -> str:
        if self._model is not None and question.history and needs_history(question.text):
            messages = prompts.standalone_messages(
                question.text, question.history[-_HISTORY_TURNS:], language=language_of(question.text)
            )
            try:
                rewritten = "".join(delta.text for delta in self._model.stream(messages, max_tokens=96)).strip()
            except ModelError:
                rewritten = ""  # the answer itself will say that the model is down
            if rewritten and len(rewritten) <= 4 * len(question.text) + 200:
                return rewritten.splitlines()[0]
        return standalone(question.text, question.history)

    # ── without a model ───────────────────────────────────────────────────────────────────────

    def _from_sentences(self, found: Found, draft: _Draft) -> Iterator[Event]:
        chosen = extract(
            found.hits,
            wanted=found.keywords,
            coverage=found.view.coverage,
            vector=found.view.vector,
            embedder=found.view.embedder,
        )
        for item in chosen:
            yield draft.add(_told(item), [_citation(item)])
        if not chosen:
            draft.refuse(found)

    # ── with a model ──────────────────────────────────────────────────────────────────────────

    def _from_model(self, question: Question, found: Found, draft: _Draft) -> Iterator[Event]:
        assert self._model is not None
        try:
            context = self._context(question, found, draft.language)
            draft.left_out = context.left_out
            reply = yield from self._reply(question, context, draft)
        except ModelError as problem:
            draft.start_over(degraded=str(problem))
            yield from self._from_sentences(found, draft)
            return
        draft.start_over()
        draft.model = self._model.name
        if prompts.is_no_answer(reply):
            draft.refuse(found)
            return
        for claim in claims(reply):
            draft.add(claim.text, _checked(claim, context.passages))

    def _context(self, question: Question, found: Found, language: str) -> Context:
        assert self._model is not None
        model, history = self._model, question.history[-_HISTORY_TURNS:]

        def cost(hit: Hit) -> int:
            return prompts.passage_tokens(model.count_tokens, hit.title, hit.place, hit.text, language=language)

        fixed = prompts.overhead_tokens(model.count_tokens, question.text, language=language, history=history)
        budget = min(model.window - fixed - self._reserve(), _MOST_CONTEXT_TOKENS)
        context = pack(found.hits, budget_tokens=budget, count_tokens=cost)
        if not context.passages:
            raise ModelSilent(
                f"The window of {model.name}, {model.window} tokens, has no room for a single passage.",
                remedy="Use a model with a larger window, or set ATTEST_LLM_WINDOW if it is larger than that.",
            )
        return context

    def _reserve(self) -> int:
        """Tokens of the window that are kept for the reply."""
        assert self._model is not None
        return min(self._max_tokens, self._model.window // 4)

    def _reply(self, question: Question, context: Context, draft: _Draft) -> Generator[Event, None, str]:
        """The whole reply, streamed on the way."""
        assert self._model is not None
        messages = prompts.answer_messages(
            question.text, context.passages, language=draft.language, history=question.history[-_HISTORY_TURNS:]
        )
        reply, said = "", 0
        with closing(self._model.stream(messages, max_tokens=self._reserve())) as stream:
            for delta in stream:
                draft.usage = delta.usage or draft.usage
                if not delta.text:
                    continue
                reply += delta.text
                yield Token(delta.text)
                complete = claims(reply, finished=False)
                for claim in complete[said:]:
                    yield draft.add(claim.text, _checked(claim, context.passages))
                said = max(said, len(complete))
        if not claims(reply):
            raise ModelSilent(f"{self._model.name} gave a reply without a sentence in it.")
        return reply


# ── putting an answer together ────────────────────────────────────────────────────────────────


@dataclass
class _Draft:
    """An answer being written: text, sentences and citations grow together, so that their offsets agree."""

    standalone_question: str
    language: str
    as_of: datetime | None = None
    not_kept: int = 0
    id: str = field(default_factory=lambda: f"ans_{secrets.token_hex(8)}")
    text: str = ""
    sentences: list[Sentence] = field(default_factory=list)
    citations: list[Citation] = field(default_factory=list)
    refusal: Refusal | None = None
    model: str = EXTRACTIVE
    degraded: str | None = None
    left_out: int = 0
    usage: Usage = field(default_factory=Usage)
    timings_ms: dict[str, float] = field(default_factory=dict)

    def add(self, sentence: str, cited: Sequence[Citation]) -> Said:
        """Append a sentence, with [n] behind it for each of its citations. An equal citation keeps its number."""
        numbers = [self._number(citation) for citation in cited]
        if self.text:
            self.text += "" if self.language == "zh" and self.text[-1] not in ".!?" else " "
        start = len(self.text)
        self.text += sentence
        supports = [citation.support for citation in cited]
        added = Sentence(sentence, start, len(self.text), tuple(dict.fromkeys(numbers)), _best(supports))
        marks = "".join(f"[{n}]" for n in added.citations)
        self.text += f" {marks}" if marks and self.language == "en" else marks
        self.sentences.append(added)
        return Said(added, tuple(self.citations[n - 1] for n in added.citations))

    def _number(self, citation: Citation) -> int:
        for known in self.citations:
            if (known.chunk_id, known.start, known.end) == (citation.chunk_id, citation.start, citation.end):
                return known.n
        self.citations.append(replace(citation, n=len(self.citations) + 1))
        return len(self.citations)

    def refuse(self, found: Found) -> None:
        self.text, self.refusal = explain(found, language=self.language)

    def start_over(self, *, degraded: str | None = None) -> None:
        """Forget what was provisional."""
        self.text, self.sentences, self.citations = "", [], []
        if degraded is not None:
            self.degraded, self.model, self.left_out = degraded, EXTRACTIVE, 0

    def finish(self) -> Answer:
        return Answer(
            id=self.id,
            answer=self.text,
            refused=self.refusal is not None,
            refusal=self.refusal,
            citations=tuple(self.citations),
            sentences=tuple(self.sentences),
            standalone_question=self.standalone_question,
            language=self.language,
            model=self.model,
            degraded=self.degraded,
            left_out=self.left_out,
            usage=self.usage,
            timings_ms=self.timings_ms,
            as_of=self.as_of,
            not_kept=self.not_kept,
        )


def _told(item: Extract) -> str:
    """The sentence as it reads in an answer: on one line, and a table row with its name in front."""
    lines = [line.strip() for line in item.text.splitlines() if line.strip()]
    if item.hit.place_at(item.start).row is None:
        return " ".join(lines)
    told = "; ".join(line for line in lines if line.partition(": ")[2] not in item.hit.title)
    return f"{item.hit.title} — {told or '; '.join(lines)}"


def _citation(item: Extract) -> Citation:
    return _quoted(item.hit, item.start, item.end, support="supported")


def _checked(claim: Claim, passages: Sequence[Passage]) -> list[Citation]:
    """Citations of a model's sentence. Numbers of passages that were not offered are dropped.

    A sentence without any, or whose own do not support it, gets the passage that does, if one does: models often
    know the answer and point at its neighbour.
    """
    offered = {passage.n: passage for passage in passages}
    named = [best_evidence(claim.text, offered[n]) for n in claim.passages if n in offered]
    if not any(item.support == "supported" for item in named):
        found = max((best_evidence(claim.text, passage) for passage in passages), key=_strength)
        better = not named or _strength(found) > max(map(_strength, named))
        if found.support != "unsupported" and better:
            named = [found]
    return [_quoted(item.passage.hit, item.start, item.end, support=item.support) for item in named]


def _strength(item: Evidence) -> tuple[int, float]:
    return ("unsupported", "weak", "supported").index(item.support), item.share


def _quoted(hit: Hit, start: int, end: int, *, support: Support) -> Citation:
    return Citation(
        n=0,
        document_id=hit.document_id,
        version=hit.version,
        title=hit.title,
        uri=hit.uri,
        place=hit.place_at(start),
        chunk_id=hit.chunk_id,
        start=start,
        end=end,
        quote=hit.text[start - hit.start : end - hit.start],
        support=support,
    )


def _best(supports: Sequence[Support]) -> Support:
    if "supported" in supports:
        return "supported"
    return "weak" if "weak" in supports else "unsupported"

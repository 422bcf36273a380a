"""Question → answer, as a stream. The plain answer is the last event of the same stream.

retrieve → enough evidence? → context → the model, or the sentences themselves → each sentence checked → Answer.
A model that is down, slow or empty falls back to the sentences, and the answer says so (`degraded`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime

from rag.answering.cells import cells
from rag.answering.check import Checked, Checker, weakest
from rag.answering.citations import claims
from rag.answering.context import REACH, Context, pack
from rag.answering.disagreement import Conflict, conflicts, newest_first, told
from rag.answering.evidence import ENOUGH, evidence
from rag.answering.extract import Extract, Short, extract
from rag.answering.refusal import explain
from rag.answering.vague import explain_vague, vague
from rag.answering.verify import Evidence
from rag.catalog.surroundings import read_around
from rag.errors import ModelError, ModelSilent
from rag.filters import Filter
from rag.knowledge import KnowledgeBase
from rag.llm import prompts
from rag.llm.window import estimate_tokens
from rag.models import (
    Answer,
    Citation,
    Disagreement,
    Hit,
    Passage,
    Refusal,
    Sentence,
    ShortAnswer,
    Shown,
    Stated,
    Support,
    Turn,
    Usage,
)
from rag.ports import ChatModel, Message
from rag.retrieval.followup import needs_history, standalone
from rag.retrieval.retrieve import Found, retrieve
from rag.retrieval.rewrites import fused, rewrites
from rag.retrieval.turns import Turns
from rag.text.duplicates import collapse
from rag.text.language import language_of

EXTRACTIVE = "extractive"  # the name of the answerer that needs no model

_HISTORY_TURNS = 6  # that a model is shown
_PASSAGE_TOKENS = 120  # fewer than most passages take
_HELD_BACK_CHARS = 60  # of a reply, at the most, until they tell its language
# Below this, fewer than every second question has an answer (docs/decisions/0003): with a reply that no source
# supports, that is too little to say anything.
_THIN = 0.5


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    collections: tuple[str, ...] = ()  # none means all
    history: tuple[Turn, ...] = ()
    top_k: int = 8
    as_of: datetime | None = None  # what was active then, instead of now
    filters: Filter | None = None  # only documents of which this is true
    min_evidence: float | None = None  # less is refused; None: the assistant's own bar
    wider: bool = True  # a model may be shown more than the best `top_k`, where its window has room


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
    short_answer: ShortAnswer | None = None  # with the first sentence, where there is one


@dataclass(frozen=True, slots=True)
class Final:
    """The whole answer, which alone counts."""

    answer: Answer


Event = Retrieval | Token | Said | Final


# Looking up is mostly Python, of which one thread runs at a time; more of them only get in each other's way. 16 clients
# at 20,000 chunks on 2 cores: 29 answers a second and a p95 of 570 ms, without a bound 22 and 1,200.
_AT_ONCE = 2


class Assistant:
    """Answers from a knowledge base, with a language model or without. Thread-safe."""

    def __init__(
        self,
        base: KnowledgeBase,
        *,
        model: ChatModel | None,
        max_tokens: int = 512,
        enough_evidence: float = ENOUGH,
        context_tokens: int = 4_000,
        query_rewrites: int = 0,
    ) -> None:
        self._base = base
        self._model = model
        self._max_tokens = max_tokens
        self._enough_evidence = enough_evidence
        self._context_tokens = context_tokens
        self._query_rewrites = query_rewrites
        self._turns = Turns(_AT_ONCE)

    def answer(self, question: Question) -> Answer:
        for event in self.stream(question):
            if isinstance(event, Final):
                return event.answer
        raise AssertionError("a stream ends with its Final event")

    def search(self, question: Question) -> Found:
        """What is found for the question as it stands, and for other wordings of it where a model is to give some."""
        collections = self._base.collections(question.collections)

        def look_up(text: str) -> Found:
            with nullcontext() if question.as_of else self._turns:  # the past may have to be indexed first, for seconds
                return retrieve(
                    text,
                    base=self._base,
                    collections=collections,
                    k=question.top_k,
                    as_of=question.as_of,
                    filters=question.filters,
                )

        found = look_up(question.text)
        if self._model is None or not self._query_rewrites:
            return found
        began = time.perf_counter()
        others = [(text, look_up(text)) for text in rewrites(self._model, question.text, n=self._query_rewrites)]
        if others:
            found = fused(found, others, k=question.top_k)
        spent = round((time.perf_counter() - began) * 1000, 2)
        return replace(found, timings_ms={**found.timings_ms, "rewrite": spent})

    def context(self, found: Found, *, tokens: int, language: str, wider: bool = True) -> Context:
        """What a model is shown of what was found, within so many tokens as it counts them; without a model, as they
        are estimated, rather too high. `wider`: with what ranks behind the hits, where there is room.

        What stands around the hits is read in a snapshot of its own: versions never change, questions that show no
        context need not wait for it, and no writer waits for it. What was purged since the hits were found has nothing
        around it.
        """
        count = self._model.count_tokens if self._model is not None else estimate_tokens

        def cost(passage: Passage) -> int:
            return prompts.passage_tokens(count, passage, language=language)

        def around(hits: Sequence[Hit]) -> list[Hit]:
            with self._base.catalog.read() as snapshot:
                return read_around(snapshot, hits, reach=REACH)

        ranked = [*found.hits, *found.more[: tokens // _PASSAGE_TOKENS]] if wider else found.hits
        more = collapse(ranked, k=len(ranked))[len(found.hits) :]
        return pack(
            found.hits, budget_tokens=tokens, count_tokens=cost, wanted=found.keywords, around=around, more=more
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
            rewrites=found.rewrites,
        )
        draft.evidence = evidence(found)
        least = self._enough_evidence if question.min_evidence is None else question.min_evidence
        enough = draft.evidence >= least
        if readings := vague(text, found, enough=enough):
            draft.text, draft.refusal = explain_vague(found, readings, language=draft.language)
        elif not enough:
            draft.refuse(found)
        else:
            draft.disputed = self._disputed(text, found)
            if self._model is None:
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

    def _disputed(self, question: str, found: Found) -> list[Conflict]:
        """Where the passages give different numbers or dates for what was asked, the newest statement first."""
        disputed = conflicts(question, found.hits, found.keywords)
        if not disputed:
            return []
        with self._base.catalog.read() as snapshot:
            return [newest_first(conflict, snapshot) for conflict in disputed]

    # ── without a model ───────────────────────────────────────────────────────────────────────

    def _from_sentences(self, found: Found, draft: _Draft) -> Iterator[Event]:
        chosen = extract(
            found.hits,
            question=draft.standalone_question,
            wanted=found.keywords,
            coverage=found.view.coverage,
            vector=found.view.vector,
            embedder=found.view.embedder,
        )
        yield from draft.disagree()
        if draft.disagreements:
            # No side is taken: what is told besides is what neither of them says.
            yield from (draft.add(_told(item), [_citation(item)]) for item in chosen.sentences if not draft.has(item))
            return
        said = [draft.add(_told(item), [_citation(item)]) for item in chosen.sentences]
        if chosen.short is not None:
            draft.short_answer = _short(chosen.sentences[chosen.short.sentence], chosen.short, draft.sentences)
            said[0] = replace(said[0], short_answer=draft.short_answer)
        yield from said
        if not said:
            draft.refuse(found)

    # ── with a model ──────────────────────────────────────────────────────────────────────────

    def _from_model(self, question: Question, found: Found, draft: _Draft) -> Iterator[Event]:
        assert self._model is not None
        try:
            context = self._context(question, found, draft.language)
            draft.left_out = context.left_out
            draft.passages = tuple(Shown.of(passage) for passage in context.passages)
            checker = Checker(context.passages, found)
            reply = yield from self._reply(question, context, checker, draft)
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
            draft.add_checked(claim.text, checker.check(claim))
        if draft.support == "unsupported" and not any(item.citations for item in draft.sentences):
            yield from self._withdraw(found, checker, draft)
        if draft.refusal is None and not draft.disagreements:
            list(draft.disagree())

    def _context(self, question: Question, found: Found, language: str) -> Context:
        assert self._model is not None
        model, history = self._model, question.history[-_HISTORY_TURNS:]
        fixed = prompts.overhead_tokens(model.count_tokens, question.text, language=language, history=history)
        budget = min(model.window - fixed - self._reserve(), self._context_tokens)
        context = self.context(found, tokens=budget, language=language, wider=question.wider)
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

    def _withdraw(self, found: Found, checker: Checker, draft: _Draft) -> Iterator[Event]:
        """No passage says anything of the reply. Where the evidence is thin besides, nothing is said at all."""
        assert self._model is not None
        if not any(checker.speaks(language_of(item.text)) for item in draft.sentences):
            return  # told in another language than the passages: nothing that could be held against them
        draft.start_over(degraded=f"Nothing in the reply of {self._model.name} is supported by the sources.")
        if draft.evidence is not None and draft.evidence < _THIN:
            draft.refuse(found)
        else:
            yield from self._from_sentences(found, draft)

    def _reply(
        self, question: Question, context: Context, checker: Checker, draft: _Draft
    ) -> Generator[Event, None, str]:
        """The whole reply, streamed on the way. A model that begins in another language is stopped, and told once."""
        assert self._model is not None
        free = prompts.asks_for_a_language(question.text)
        for firm in (False, True):
            messages = prompts.answer_messages(
                question.text,
                context.passages,
                disputed=bool(draft.disputed),
                language=draft.language,
                history=question.history[-_HISTORY_TURNS:],
                firm=firm,
            )
            reply = yield from self._streamed(messages, checker, draft, stop_in_other=not (firm or free))
            if reply is None:
                continue
            if not claims(reply):
                raise ModelSilent(f"{self._model.name} gave a reply without a sentence in it.")
            if not free and prompts.in_other_language(reply, draft.language):
                problem = f"{self._model.name} does not answer in the language of the question."
                if checker.speaks(draft.language):
                    raise ModelSilent(problem)  # the passages do
                draft.degraded = problem
            return reply
        raise AssertionError("the second reply is not stopped")

    def _streamed(
        self, messages: Sequence[Message], checker: Checker, draft: _Draft, *, stop_in_other: bool
    ) -> Generator[Event, None, str | None]:
        """The reply, whose first words are held back until they tell its language; None where that is another one."""
        assert self._model is not None
        reply, told, said = "", 0, 0
        with closing(self._model.stream(messages, max_tokens=self._reserve())) as stream:
            for delta in stream:
                draft.usage = delta.usage or draft.usage
                if not delta.text:
                    continue
                reply += delta.text
                if stop_in_other:
                    other = prompts.in_other_language(reply, draft.language)
                    if other:
                        return None
                    if other is None and len(reply) < _HELD_BACK_CHARS:
                        continue
                    stop_in_other = False
                yield Token(reply[told:])
                told = len(reply)
                complete = claims(reply, finished=False)
                for claim in complete[said:]:
                    yield draft.add_checked(claim.text, checker.check(claim))
                said = max(said, len(complete))
        if told < len(reply):
            yield Token(reply[told:])
        return reply


# ── putting an answer together ────────────────────────────────────────────────────────────────


@dataclass
class _Draft:
    """An answer being written: text, sentences and citations grow together, so that their offsets agree."""

    standalone_question: str
    language: str
    as_of: datetime | None = None
    not_kept: int = 0
    rewrites: tuple[str, ...] = ()
    evidence: float | None = None
    id: str = field(default_factory=lambda: f"ans_{secrets.token_hex(8)}")
    text: str = ""
    sentences: list[Sentence] = field(default_factory=list)
    citations: list[Citation] = field(default_factory=list)
    refusal: Refusal | None = None
    short_answer: ShortAnswer | None = None
    model: str = EXTRACTIVE
    degraded: str | None = None
    left_out: int = 0
    passages: tuple[Shown, ...] = ()
    usage: Usage = field(default_factory=Usage)
    timings_ms: dict[str, float] = field(default_factory=dict)
    disputed: list[Conflict] = field(default_factory=list)  # to be told
    disagreements: list[Disagreement] = field(default_factory=list)  # as they were told

    @property
    def support(self) -> Support | None:
        """As its weakest sentence; None where nothing is said."""
        return weakest([sentence.support for sentence in self.sentences])

    def add_checked(self, sentence: str, checked: Checked) -> Said:
        return self.add(sentence, [_shown(item) for item in checked.found], support=checked.support)

    def add(self, sentence: str, cited: Sequence[Citation], *, support: Support = "supported") -> Said:
        """Append a sentence, with [n] behind it for each of its citations. An equal citation keeps its number."""
        numbers = [self._number(citation) for citation in cited]
        if self.text:
            self.text += "" if self.language == "zh" and self.text[-1] not in ".!?" else " "
        start = len(self.text)
        self.text += sentence
        added = Sentence(sentence, start, len(self.text), tuple(dict.fromkeys(numbers)), support)
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

    def disagree(self) -> Iterator[Said]:
        """Tell every side of what is disputed, each with its source."""
        for conflict in self.disputed:
            stated = []
            for one, text in zip(conflict.statements, told(conflict, language=self.language), strict=True):
                said = self.add(text, [_quoted(one.hit, one.start, one.end, support="supported")])
                stated.append(Stated(one.text, one.value, said.citations[0].n, one.dated))
                yield said
            self.disagreements.append(Disagreement(conflict.about, tuple(stated)))

    def has(self, item: Extract) -> bool:
        """Whether a side of what is disputed is the sentence, or a part of it."""
        sides = (one for conflict in self.disputed for one in conflict.statements)
        return any(
            one.hit.chunk_id == item.hit.chunk_id and one.start < item.end and item.start < one.end for one in sides
        )

    def refuse(self, found: Found) -> None:
        self.text, self.refusal = explain(found, language=self.language)

    def start_over(self, *, degraded: str | None = None) -> None:
        """Forget what was provisional."""
        self.text, self.sentences, self.citations, self.short_answer = "", [], [], None
        self.disagreements = []
        if degraded is not None:
            self.degraded, self.model, self.left_out, self.passages = degraded, EXTRACTIVE, 0, ()

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
            support=self.support,
            left_out=self.left_out,
            usage=self.usage,
            timings_ms=self.timings_ms,
            as_of=self.as_of,
            not_kept=self.not_kept,
            disagreements=tuple(self.disagreements),
            evidence=self.evidence,
            short_answer=self.short_answer,
            passages=self.passages,
            rewrites=self.rewrites,
        )


def _told(item: Extract) -> str:
    """The sentence as it reads in an answer: on one line, and a table row with its name in front, or with the names of
    its columns where it has them in the header alone."""
    lines = [line.strip() for line in item.text.splitlines() if line.strip()]
    if item.hit.place_at(item.start).row is None:
        named = cells(item.text, heading=item.hit.table_header) if " | " in item.text else []
        if named and all(cell.name and cell.start < cell.end for cell in named):
            return "; ".join(f"{cell.name}: {item.text[cell.start : cell.end]}" for cell in named)
        return " ".join(lines)
    told = "; ".join(line for line in lines if line.partition(": ")[2] not in item.hit.title)
    return f"{item.hit.title} — {told or '; '.join(lines)}"


def _short(item: Extract, short: Short, sentences: Sequence[Sentence]) -> ShortAnswer:
    text = item.text[short.start - item.start : short.end - item.start]
    return ShortAnswer(text, sentences[short.sentence].citations[0], short.start, short.end)


def _citation(item: Extract) -> Citation:
    return _quoted(item.hit, item.start, item.end, support="supported")


def _shown(item: Evidence) -> Citation:
    """The chunk is that in which the quote begins; it may end in the next one."""
    passage = item.passage
    quoted = _quoted(passage.span_at(item.start).chunk, item.start, item.end, support=item.support)
    return replace(quoted, quote=passage.quote(item.start, item.end))


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
        also=hit.also,
        date=hit.date,
    )

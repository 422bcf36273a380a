"""Every way in which a language model's server fails has one meaning, whichever library reported it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rag.errors import ModelError, ModelRejected, ModelTimeout, ModelUnavailable
from rag.llm.errors import CutShort, pause_seconds, redact, understand
from rag.llm.stream import ThoughtFilter
from rag.llm.window import WindowFinder, default_for, estimate_tokens, fewest_tokens


class Response:
    def __init__(self, status_code: int, headers: dict[str, str] | None = None) -> None:
        self.status_code = status_code
        self.headers = headers or {}


class StatusError(Exception):
    """As openai's and anthropic's: the status on the error, the response beside it."""

    def __init__(self, status: int, message: str = "no", headers: dict[str, str] | None = None) -> None:
        super().__init__(f"Error code: {status}")
        self.status_code = status
        self.response = Response(status, headers)
        self.body = {"error": {"message": message}}


class ReadTimeout(Exception):
    pass


class APIConnectionError(Exception):
    pass


class APIError(Exception):
    def __init__(self) -> None:
        self.body = {"message": "the engine died"}


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (StatusError(400), ModelRejected, False),
        (StatusError(401), ModelRejected, False),
        (StatusError(402), ModelRejected, False),
        (StatusError(403), ModelRejected, False),
        (StatusError(404), ModelRejected, False),
        (StatusError(307), ModelRejected, False),
        (StatusError(408), ModelUnavailable, True),
        (StatusError(429), ModelUnavailable, True),
        (StatusError(429, "insufficient_quota"), ModelRejected, False),
        (StatusError(500), ModelUnavailable, True),
        (StatusError(503), ModelUnavailable, True),
        (StatusError(529), ModelUnavailable, True),
        (ReadTimeout(), ModelTimeout, False),
        (TimeoutError(), ModelTimeout, False),
        (APIConnectionError(), ModelUnavailable, True),
        (ConnectionRefusedError(111, "refused"), ModelUnavailable, True),
        (APIError(), ModelUnavailable, True),
        (CutShort("early"), ModelUnavailable, True),
        (KeyError("choices"), ModelError, False),
    ],
)
def test_each_failure_has_its_meaning(error: Exception, kind: type[ModelError], retryable: bool) -> None:
    failure = understand(error, model="m", secret=None)
    assert type(failure.error) is kind
    assert failure.retryable is retryable
    assert "m" in failure.error.detail


def test_the_cause_below_a_library_s_own_error_counts() -> None:
    error = RuntimeError("wrapped")
    error.__cause__ = ReadTimeout()
    assert isinstance(understand(error, model="m", secret=None).error, ModelTimeout)


@pytest.mark.parametrize(
    ("words", "window"),
    [
        ("This model's maximum context length is 4096 tokens. However, you requested 5123 tokens.", 4096),
        ("the request exceeds the available context size (2048 tokens), try increasing it", 2048),
        ("prompt is too long", None),
    ],
)
def test_a_prompt_that_is_too_long_tells_the_window_where_the_server_does(words: str, window: int | None) -> None:
    failure = understand(StatusError(400, words), model="m", secret=None)
    assert isinstance(failure.error, ModelRejected)
    assert "ATTEST_LLM_WINDOW" in failure.error.remedy
    assert failure.stated_window == window


def test_no_key_survives_in_a_message() -> None:
    error = StatusError(401, "Incorrect key provided: top-secret, also sk-proj-abc123def, Bearer eyJhbGciOi.x")
    said = str(understand(error, model="m", secret="top-secret").error)
    assert "top-secret" not in said
    assert "abc123" not in said
    assert "eyJ" not in said
    assert redact("nothing to hide", None) == "nothing to hide"


def test_a_server_s_long_story_is_cut_short() -> None:
    assert len(understand(StatusError(500, "x " * 9000), model="m", secret=None).error.detail) < 450


def test_the_server_s_wish_for_patience_is_honoured_up_to_a_bound() -> None:
    failure = understand(StatusError(429, headers={"retry-after": "3"}), model="m", secret=None)
    assert pause_seconds(0, failure.retry_after_seconds) == 3.0
    failure = understand(StatusError(429, headers={"retry-after-ms": "250"}), model="m", secret=None)
    assert pause_seconds(0, failure.retry_after_seconds) == 0.25
    assert pause_seconds(0, 3600.0) is None
    a_date = understand(
        StatusError(429, headers={"retry-after": "Fri, 20 Nov 2026 10:00:00 GMT"}), model="m", secret=None
    )
    assert a_date.retry_after_seconds is None


def test_pauses_grow_and_stay_bounded() -> None:
    pauses = [pause_seconds(attempt, None) or 0.0 for attempt in range(10)]
    assert 0.3 < pauses[0] <= 0.5
    assert pauses[0] < pauses[2] < pauses[4]
    assert max(pauses) <= 10.0


def cuts(text: str) -> Iterator[list[str]]:
    """The text in one piece, in every two pieces, and letter by letter."""
    yield [text]
    yield from ([text[:at], text[at:]] for at in range(1, len(text)))
    yield list(text)


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("<think>hm, well</think>\n\nParis [1].", "Paris [1]."),
        ("<THINKING>a < b</THINKING>Paris", "Paris"),
        ("\n Paris is < Rome, i.e. <b>", "Paris is < Rome, i.e. <b>"),
        ("One <think>no</think>two<think>x</think>.", "One two."),
        ("<think>never ends", ""),
        ("ends with <thin", "ends with <thin"),
        ("", ""),
    ],
)
def test_thoughts_never_show_however_the_reply_is_cut(reply: str, shown: str) -> None:
    for pieces in cuts(reply):
        thoughts = ThoughtFilter()
        assert "".join([*map(thoughts.feed, pieces), thoughts.flush()]) == shown


def test_the_estimate_errs_on_the_high_side_and_the_other_on_the_low() -> None:
    english = "The board approved an investment of 12.5 million dollars, which closes in March 2027. " * 20
    chinese = "董事会批准了一项一千二百五十万元的投资，将于二〇二七年三月完成。" * 20
    assert fewest_tokens(english) < len(english.split()) * 1.3 < estimate_tokens(english) < len(english) / 2
    assert fewest_tokens(chinese) < len(chinese) * 0.6 < estimate_tokens(chinese) <= len(chinese) * 1.2
    assert estimate_tokens("") == fewest_tokens("") == 0
    assert estimate_tokens("1234567890") >= 10


def test_a_window_is_asked_for_once_and_a_refusal_that_names_it_outdoes_it() -> None:
    asked: list[int] = []

    def ask() -> int | None:
        asked.append(1)
        return 8192

    finder = WindowFinder(ask)
    assert (finder(), finder()) == (8192, 8192)
    assert asked == [1]
    finder.learn(2048)
    assert finder() == 2048


def test_a_server_that_does_not_tell_its_window_is_not_asked_at_every_question() -> None:
    asked: list[int] = []

    def ask() -> int | None:
        asked.append(1)
        return None

    finder = WindowFinder(ask, default=4096)
    assert (finder(), finder()) == (4096, 4096)
    assert asked == [1]
    assert default_for("https://api.deepseek.com/v1") == 65_536
    assert default_for("http://example.org/v1") == 4096

"""A follow-up becomes a question that stands alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.models import Turn

# What leans on the turn before: pronouns, and openings that leave the subject out. “Is there a …” leans on nothing.
_ENGLISH = re.compile(
    r"^\s*(?:and|but|so|what about|how about|then|also)\b"
    r"|\b(?:it|its|they|them|their|theirs|he|him|his|she|her|hers|this|that|these|those|one|ones)\b"
    r"|(?<!\bis )(?<!\bare )(?<!\bwas )(?<!\bwere )\bthere\b(?! (?:is|are|was|were|be)\b)",
    re.IGNORECASE,
)
# Not 其他, 应该, 尤其: the same characters in words that refer to nothing.
_CHINESE = re.compile(
    r"^\s*(?:那|那么|还有|另外|然后|如果是)|[它她]|(?<!其)他|这(?:个|种|款|项|些|里|样)|那(?:个|种|款|项|些|里|样)"
    r"|(?<!应)该|(?<!尤)其(?!他|它|余|中|实|次)|呢[？?]?\s*$"
)


def needs_history(question: str) -> bool:
    """Whether the question leans on what was said before. Fires on pronouns and ellipsis only."""
    return bool(_ENGLISH.search(question) or _CHINESE.search(question))


def standalone(question: str, history: Sequence[Turn]) -> str:
    """The question, with the last one of the asker in front where it leans on that."""
    asked = [turn.content.strip() for turn in history if turn.role == "user" and turn.content.strip()]
    if not asked or not needs_history(question):
        return question
    return f"{asked[-1].rstrip('?？ ')} — {question}"

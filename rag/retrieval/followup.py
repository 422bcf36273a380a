"""A follow-up becomes a question that stands alone, without a model: by rules on pronouns and on what is left out.

The costly error is to fire on a question that stands alone: it is then looked up with somebody else's words in it. So
a pronoun counts only where nothing before it in its own question could be what it means (“When did Victoria enact its
constitution?” leans on nothing), and an opening like “And …” only where hardly anything follows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from rag.models import Turn
from rag.text.keywords import tagged
from rag.text.language import ENGLISH_STOP_WORDS, is_han, language_of

_CHAIN = 3  # turns of the asker that a follow-up of follow-ups may reach back over


def needs_history(question: str) -> bool:
    """Whether the question leans on what was said before. Fires on pronouns and ellipsis only."""
    text = " ".join(question.split())
    return _chinese_leans(text) if any(map(is_han, text)) and language_of(text) == "zh" else _english_leans(text)


def standalone(question: str, history: Sequence[Turn]) -> str:
    """The question, with what it leans on: the last one of the asker in front, which may lean on the one before it.

    A bare place, code or name (“And in Porto?”, 那深圳呢？) takes the place of its like in that question instead.
    """
    asked = [turn.content.strip() for turn in history if turn.role == "user" and turn.content.strip()]
    if not asked or not needs_history(question):
        return question
    before = asked[-1] if len(asked) == 1 else standalone(asked[-1], [Turn("user", text) for text in asked[-_CHAIN:-1]])
    return _exchanged(question, before) or f"{before.rstrip('?？ ')} — {question}"


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


# ── English ───────────────────────────────────────────────────────────────────────────────────

_WORD = re.compile(r"[^\W_](?:[\w'’./+-]*[^\W_])?")
_CODE = re.compile(r"(?=.*\d)(?=.*[^\W\d_])[\w./-]{2,}")
_OPENING = re.compile(
    r"^(?:ok(?:ay)?[,.]? |and |but |so |then |also |or )*"
    r"(?P<about>(?:what|how) (?:about|if)\b|same (?:question |thing )?(?:for|in)\b)?",
    re.IGNORECASE,
)
_ASKS = _listed("what which who whom whose when where why how")
_AUXILIARIES = _listed(
    """is are was were be been do does did has have had can could will would shall should may might must am
    isn't aren't wasn't weren't don't doesn't didn't hasn't haven't can't couldn't won't wouldn't shouldn't"""
)
_SMALL = (
    ENGLISH_STOP_WORDS
    | _ASKS
    | _AUXILIARIES
    | _listed("per else also then there here one ones long often old far big heavy soon")
)
_PREPOSITIONS = _listed("in on at for from with by to during before after since under over without until than")
_DETERMINERS = _listed("the a an my your our his her its their each every any some")
_PRONOUNS = _listed("it its itself they them their theirs he him his she her hers")
_OBJECTS = _listed("it them him her")
_POINTING = _listed("this that these those")
# “it” that means nothing: is it possible to …, does it take to …, what does it mean when …
_EXPLETIVE = re.compile(
    r"\b(?:is|was|isn't|wasn't|be|makes?|made) it (?:\w+ ){0,2}?(?:to|that|for(?= [^?]* to\b)|when|if|like)\b"
    r"|\b(?:does|did|do|will|would|can) it (?:\w+ )?(?:take|cost|mean|matter|happen|require|feel|rain|snow)\b[^?]*"
    r" (?:to|that|when|if|for)\b"
    r"|\b(?:is|was) it (?:called|named|known|said|believed|thought)\b[^?]* (?:when|if|that|to)\b"
    r"|\bwhat time is it\b|\bwhen it comes to\b|\bhow (?:is|was|does|did) it (?:that|come)\b|\bit['’]?s? (?:is|was)\b",
    re.IGNORECASE,
)
_END = re.compile(
    r"\b(?:of|by|with|from|for|to|about|than|like|after|before|is|was|in|on|do|does|did) (?:this|that|these|those)"
    r"\W*$|^(?:why|how|since when|says who|who|when|where) (?:is|was|are|were) (?:this|that|these|those)\b\W*$",
    re.IGNORECASE,
)
_ONES = re.compile(
    r"\b(?:which|this|that|the(?: \w+)?|another|any|each|every) (?:other )?ones?\b(?! of)", re.IGNORECASE
)
_OTHERS = re.compile(r"\bthe (?:former|latter|others?|same)\W*$|\b(?:any|some) (?:others|more)\W*$", re.IGNORECASE)
_THERE = re.compile(
    r"(?<!\bis )(?<!\bare )(?<!\bwas )(?<!\bwere )\bthere(?= (?:on|in|at|by|during|after|before|now|today|too)\b|\W*$)",
    re.IGNORECASE,
)
_COMPARED = re.compile(
    r"^(?:and )?(?:which|who) (?:is|are|was|were|has|costs?|lasts?) (?:the |more |most )*"
    r"(?:\w+er|\w+est|better|best|worse|worst|more|less|most|least)\W*$",
    re.IGNORECASE,
)


def _english_leans(text: str) -> bool:
    opening = _OPENING.match(text)
    assert opening is not None
    rest = text[opening.end() :]
    words = _words(rest)
    if not words:
        return True  # “And?”, “What about?”
    if opening["about"]:
        return len(words) <= 8
    content = [word for word in words if word.lower() not in _SMALL]
    if not content:
        return not {"who", "i"} >= {word.lower() for word in words if word.lower() not in _AUXILIARIES}
    if words[0].lower() in _PREPOSITIONS and len(words) <= 4 and not _AUXILIARIES & {word.lower() for word in words}:
        return True  # In which direction?
    asks = any(word.lower() in _ASKS | _AUXILIARIES for word in words)
    if opening.end() and not asks and len(words) <= 6:
        return True  # And in Porto?
    if not asks and len(content) <= 2 and text.endswith("?") and (_is_part(words) or _is_name(words)):
        return True  # In Porto? The TL-1422?
    return bool(_COMPARED.match(text)) or _points_back(rest)


def _is_part(words: Sequence[str]) -> bool:
    return words[0].lower() in _PREPOSITIONS | _DETERMINERS and len(words) <= 4


def _is_name(words: Sequence[str]) -> bool:
    return len(words) == 1 and (words[0][0].isupper() or bool(_CODE.fullmatch(words[0])))


def _words(text: str) -> list[str]:
    return [match[0] for match in _WORD.finditer(text)]


def _points_back(text: str) -> bool:
    """A pronoun that nothing before it in the question can be meant by."""
    if _END.search(text):
        return True
    masked = _EXPLETIVE.sub(lambda found: re.sub(r"\b[iI]t\b", "_", found[0]), text)
    ones = _ONES.search(masked) or _OTHERS.search(masked)
    if ones and not _antecedents(masked[: ones.start()]):
        return True
    there = _THERE.search(masked)
    if there and not _noun_phrase(masked[: there.start()]) and len(_antecedents(masked[: there.start()])) <= 2:
        return True
    matches = list(_WORD.finditer(masked))
    for at, match in enumerate(matches):
        word = match[0] if match[0] in ("IT", "US") else match[0].lower()
        if word not in _PRONOUNS and not (word in _POINTING and _is_pronoun(matches, at)):
            continue
        before = masked[: match.start()]
        if word in _OBJECTS and not _noun_phrase(before) and at >= 2 and _is_last(matches, at):
            return True  # Who sells them? Which version introduced it?
        if not _antecedents(before) and not _introduced(masked, match):
            return True
    return False


def _is_pronoun(matches: Sequence[re.Match[str]], at: int) -> bool:
    """this, that: in front of a noun or instead of it, and no “those who”, no “that” of a clause."""
    following = matches[at + 1][0].lower() if at + 1 < len(matches) else ""
    if following in {"who", "of", "which", "whose", "whom", "that", "with", "in"} or at == 0:
        return False
    previous = matches[at - 1][0].lower()
    return previous in _AUXILIARIES | _PREPOSITIONS | {"about", "of"}


def _is_last(matches: Sequence[re.Match[str]], at: int) -> bool:
    return at + 1 == len(matches) or matches[at + 1][0].lower() in _PREPOSITIONS | _SMALL


def _antecedents(before: str) -> list[str]:
    return [word for word in _words(before) if word.lower() not in _SMALL or word in ("IT", "US")]


def _noun_phrase(before: str) -> bool:
    """A name, a code, or a noun behind its article."""
    words = _words(before)
    if any(_CODE.fullmatch(word) or (word[0].isupper() and at > 0 and word != "I") for at, word in enumerate(words)):
        return True
    return any(word.lower() in _DETERMINERS and following.lower() not in _SMALL for word, following in pairwise(words))


def _introduced(text: str, pronoun: re.Match[str]) -> bool:
    """“Outside of its use of cars, what is California famous for?”: what is meant comes behind the comma."""
    comma = text.find(",", pronoun.end())
    return comma > 0 and text[: pronoun.start()].count(" ") <= 4 and len(_antecedents(text[comma:])) >= 1


# ── Chinese ───────────────────────────────────────────────────────────────────────────────────

_OPENS = re.compile(r"^(?:还有|另外|此外|然后|再就是|以及|换成|改成|如果是|要是)")
_TITLE = re.compile("《[^》]*》|〈[^〉]*〉|“[^”]*”|「[^」]*」")
_ZH_ASKS = re.compile("什么|怎么|怎样|如何|为何|哪|谁|几|多少|多久|多长|多大|多高|多远|多重|是否|有没有|是不是|吗|何时")
_ONLY_ASKS = re.compile(
    "(?:那|那么|又|都|还|大概|一般|要|是|有|在|从|到|的|会|能|了|呢|吗|啊|为什么|为何|怎么办|怎么样|怎样|怎么|"
    "什么时候|什么|多少钱|多少|多久|多长时间|多长|多大|多高|多远|多重|几天|几个|几点|几次|哪里|哪儿|哪些|哪个|哪天|"
    "谁|何时|如何|可以|然后|还有|别的|其他|例如|比如|原因)+"
)
_ZH_PRONOUNS = _listed("它 它们 他 他们 她 她们 其 该 他的 它的 她的 这里 那里 这儿 那儿 前者 后者 两者")
_ZH_POINTING = re.compile("(?:这|那|该|此)(?:个|种|款|项|些|样|次|台|件|家|份|条|部|本|位|张|类)?")
_MEASURES = "个种款项些样次台件家份条部本位张类的"
_NOUNS = ("n", "j", "l", "i", "eng", "vn")
_EMPTY = ("r", "p", "c", "d", "y", "x", "zg")  # what can stand in front of the first thing that is spoken of
_NAMES = ("nr", "ns", "nt", "nz", "eng")


def _chinese_leans(text: str) -> bool:
    text = _TITLE.sub("书名", text)  # 《那些年》 points at nothing
    words = [(word, part) for word, part in tagged(text) if word.strip() and part != "x"]
    bare = "".join(word for word, _ in words)
    if _ONLY_ASKS.fullmatch(bare):
        return True
    asks = bool(_ZH_ASKS.search(bare))
    if bare.endswith("呢") and not asks and len(words) <= 9:
        return True  # 深圳呢？
    if words[0][1] == "v" and words[0][0].startswith("那") and len(words) <= 8:
        return True  # 那输错五次会怎么样: read as one word
    if words[0] in (("那", "r"), ("那么", "r"), ("那么", "c"), ("那", "c")) and not _determines(words, 0):
        return len(words) <= 8
    if bare.startswith("其中"):
        return True
    if _OPENS.match(bare) and len(words) <= 6:
        return True
    if not asks and len(words) <= 2 and text.endswith(("？", "?")) and _named_part(words):
        return True  # 深圳的？
    return any(_is_open(words, at) for at in range(len(words)))


def _named_part(words: Sequence[tuple[str, str]]) -> bool:
    return any(part.startswith(_NAMES) for _, part in words) and all(
        part.startswith((*_NAMES, "uj", "p", "r")) for _, part in words
    )


def _is_open(words: Sequence[tuple[str, str]], at: int) -> bool:
    """A pronoun that nothing before it, and no name in it, can be meant by."""
    word, part = words[at]
    before = words[:at]
    if word in _ZH_PRONOUNS and part.startswith(("r", "n", "c", "x")):
        if word in ("该", "其") and any(item.startswith(_NAMES) for _, item in words):
            return False
        if at + 1 == len(words) and not any(item.startswith(_NAMES) for _, item in before):
            return sum(item.startswith(_NOUNS) for _, item in before) <= 2  # 哪个固件版本引入了它？
        return not any(item.startswith(_NOUNS) for _, item in before)
    if _ZH_POINTING.fullmatch(word) and part.startswith("r"):
        if any(item.startswith(_NOUNS) for _, item in before):
            return False
        if not _determines(words, at):
            return True
        return all(item.startswith(_EMPTY) for _, item in before) and not any(
            item.startswith(_NAMES) for _, item in words
        )
    return False


def _determines(words: Sequence[tuple[str, str]], at: int) -> bool:
    """这次选举, 这款产品 against 这款防水吗: whether a noun follows."""
    following = [part for word, part in words[at + 1 : at + 4] if word not in _MEASURES]
    if words[at][0][-1] in "种类次项" or (following and following[0].startswith("m") and words[at][0] != "那么"):
        return True
    pointing = words[at][0] not in ("那", "那么") or (at + 1 < len(words) and words[at + 1][1].startswith(("m", "q")))
    return pointing and bool(following) and following[0].startswith((*_NOUNS, "a", "b"))


# ── one thing for its like ────────────────────────────────────────────────────────────────────


def _exchanged(question: str, before: str) -> str | None:
    """The question before, about another place, code or name; None where it is not clear for what."""
    chinese = any(map(is_han, question))
    new = _lone_chinese(question) if chinese else _lone_english(question)
    if new is None or (any(map(is_han, before)) and not any(map(is_han, question)) and not _CODE.fullmatch(new)):
        return None
    if _CODE.fullmatch(new):
        old = (
            [match[0] for match in _WORD.finditer(before) if _CODE.fullmatch(match[0])]
            if before.isascii()
            else re.findall(r"[A-Za-z][A-Za-z0-9./-]*\d[A-Za-z0-9./-]*", before)
        )
    elif chinese:
        old = [word for word, part in tagged(before) if part == "ns"]
    else:
        old = re.findall(rf"\b{_preposition(question)} ((?:[A-Z][\w'’-]*)(?: [A-Z][\w'’-]*)*)", before)
    if len(set(old)) != 1 or old[0] == new:
        return None
    return before.replace(old[0], new)


def _preposition(question: str) -> str:
    words = [word.lower() for word in _words(question)]
    found = [word for word in words if word in _PREPOSITIONS]
    return found[0] if found else "(?:in|at|for|from)"


def _lone_english(question: str) -> str | None:
    """“And in Porto?”, “What about the TL-1422?”: the name or the code, where there is nothing else."""
    opening = _OPENING.match(question)
    rest = question[opening.end() if opening else 0 :].strip(" ?.!")
    found = re.fullmatch(r"(?:(?:in|at|for|from|with|on|the) )*((?:[A-Z][\w'’./-]*)(?: [A-Z][\w'’-]*)*)", rest)
    return found[1] if found else None


def _lone_chinese(question: str) -> str | None:
    words = [word for word in tagged(question) if word[1] != "x" and word[0] not in "那那么在呢的如果是换成改成"]
    if len(words) != 1 or not words[0][1].startswith(("ns", "eng")):
        return None
    return words[0][0]

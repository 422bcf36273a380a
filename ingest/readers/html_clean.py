"""What a page's reader would not see is taken out; what a page hides from us (JavaScript, logins) is noticed."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

_NEVER_READ = ("script", "style", "noscript", "template", "svg", "iframe", "object")
_HIDING_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|(?<![-\w])opacity\s*:\s*0*(?:\.0+)?\s*%?\s*(?:!|;|$)"
    r"|font-size\s*:\s*0*(?:\.0+)?\s*(?:px|em|rem|pt|%|vw)?\s*(?:!|;|$)|content-visibility\s*:\s*hidden",
    re.IGNORECASE,
)
_WHOLE_PAGE = ("html", "body", "main", "head")
_FURNITURE = ("nav", "footer", "aside", "form", "button", "select", "dialog")
_SPAN_LIMIT = 100  # of columns or rows; more is a mistake or an attack
_SPREAD_CELLS = 10_000  # of one page; spans across spans could ask for millions

_HARDLY_ANY_TEXT = 60
_LITTLE_TEXT = 250  # characters of an alphabet; a Chinese one says about three times as much
_WANTS_SCRIPT = re.compile(
    r"(?:enable|requires?|need|turn on|activate|without|disabled)[^.]{0,40}java\s?script|java\s?script[^.]{0,50}"
    r"(?:required|enable|disabled|turned off|not (?:available|supported))"
    r"|(?:启用|開啟|开启|打开|禁用|支持|需要)[^。]{0,12}java\s?script",
    re.IGNORECASE,
)
_APP_ROOT = (
    "//*[@id='root' or @id='app' or @id='__next' or @id='__nuxt' or @id='app-root' or @id='react-root']|//app-root"
)
_CHECKS_VISITOR = re.compile(
    r"just a moment|checking your browser|verify (?:that )?you are (?:a )?human|attention required"
    r"|安全验证|人机验证|请完成验证",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"log\s?in|sign\s?in|password|登录|登錄|登入|密码|密碼", re.IGNORECASE)
_HAN = re.compile("[\u3400-\u9fff]+")
_COOKIES = re.compile(r"cookies?\b|consent|gdpr|privacy (?:policy|settings|preferences)|隐私政策", re.IGNORECASE)


def drop_hidden(root: Any) -> None:
    """Takes out, in place, what is never shown: scripts, styles, templates, hidden and invisible elements."""
    from lxml import etree

    for element in list(root.iter(etree.Comment, etree.ProcessingInstruction, *_NEVER_READ)):
        # JSON-LD stays: it holds the page's own account of its text and date, and is not shown as text by anybody.
        if element.tag != "script" or element.get("type") != "application/ld+json":
            _drop(element)
    everything = weight(_all_text(root))
    for element in list(root.iter()):
        if element.tag in _WHOLE_PAGE or not isinstance(element.tag, str) or not _is_hidden(element):
            continue
        # A page behind an open dialogue is marked hidden as a whole, and is still the page.
        if element.get("aria-hidden") != "true" or weight(_all_text(element)) < everything / 2:
            _drop(element)


def _is_hidden(element: Any) -> bool:
    return (
        (element.get("hidden") is not None and element.get("hidden") != "until-found")
        or element.get("aria-hidden") == "true"
        or bool(_HIDING_STYLE.search(element.get("style") or ""))
    )


def _drop(element: Any) -> None:
    """Removes the element and keeps the text that follows it."""
    parent = element.getparent()
    if parent is None:
        return
    if element.tail:
        before = element.getprevious()
        if before is None:
            parent.text = (parent.text or "") + element.tail
        else:
            before.tail = (before.tail or "") + element.tail
    parent.remove(element)


def drop_furniture(root: Any) -> None:
    """Takes out navigation, footers and forms, for when nobody found the main text."""
    for element in list(root.iter(*_FURNITURE)):
        _drop(element)
    for element in root.xpath("//body/header|//*[@role='navigation' or @role='contentinfo' or @role='search']"):
        _drop(element)


def spread_spans(root: Any) -> None:
    """Gives every table its full grid: what spans rows is repeated, what spans columns is followed by empty cells."""
    room = _SPREAD_CELLS
    for table in root.iter("table"):
        if next(table.iterdescendants("table"), None) is None:
            room -= _spread(table, room)
            _join_heads(table)


def _spread(table: Any, room: int) -> int:
    """Fills the table's grid with at most about `room` cells more; returns how many those were."""
    added = 0
    hanging: dict[int, tuple[int, Any]] = {}  # column → rows still to fill, and the cell to fill them with
    for row in table.iter("tr"):
        column = 0
        for cell in [cell for cell in row if cell.tag in ("td", "th")]:
            while column in hanging:
                cell.addprevious(_next_copy(hanging, column))
                column += 1
            rows, columns = _span(cell, "rowspan"), _span(cell, "colspan")
            added += rows * columns - 1
            if added > room:
                rows = columns = 1
            for offset in range(columns):
                # A heading over several columns names each of them; a value is said once.
                copy = deepcopy(cell) if cell.tag == "th" or not offset else cell.makeelement(cell.tag)
                copy.tail = None
                if rows > 1:
                    hanging[column] = (rows - 1, deepcopy(copy))
                if offset:
                    cell.addnext(copy)
                column += 1
        while column in hanging:
            row.append(_next_copy(hanging, column))
            column += 1
    return min(added, room)


def _join_heads(table: Any) -> None:
    """Several header rows become one: "2024" over "Q1 | Q2" names the columns "2024 Q1" and "2024 Q2"."""
    rows = [[cell for cell in row if cell.tag in ("td", "th")] for row in table.iter("tr")]
    heads = 0
    while heads < min(3, len(rows) - 1) and rows[heads] and all(cell.tag == "th" for cell in rows[heads]):
        heads += 1
    if heads < 2 or len({len(row) for row in rows[:heads]}) > 1:
        return
    for column in zip(*rows[:heads], strict=True):
        names = dict.fromkeys(" ".join(cell.text_content().split()) for cell in column)
        for child in list(column[0]):
            column[0].remove(child)
        column[0].text = " ".join(filter(None, names))
    for row in rows[1:heads]:
        row[0].getparent().getparent().remove(row[0].getparent())


def _next_copy(hanging: dict[int, tuple[int, Any]], column: int) -> Any:
    rows, cell = hanging.pop(column)
    if rows > 1:
        hanging[column] = (rows - 1, cell)
    return deepcopy(cell)


def _span(cell: Any, name: str) -> int:
    digits = re.match(r"\s*(\d{1,4})", cell.attrib.pop(name, ""))
    return min(max(int(digits.group(1)), 1), _SPAN_LIMIT) if digits else 1


def why_blocked(page: Any, text: str) -> str | None:
    """Why this is a shell and not a page, as the end of a sentence; None when it is a page.

    `page` is as it came, `text` what was extracted. Only pages that say little are suspected: an article
    with a login form in its header, or a noscript note for its comments, is an article.
    """
    if weight(text) >= _LITTLE_TEXT * 2:
        return None
    if _is_about_cookies(text):
        return "shows nothing but its cookie banner"
    if weight(text) >= _LITTLE_TEXT:
        return None
    shown = " ".join(element.text_content() for element in page.xpath("//title|//noscript|//body"))
    if page.xpath("//input[@type='password']") and (weight(text) < _HARDLY_ANY_TEXT or _LOGIN.search(text)):
        return "asks for a login"
    if _CHECKS_VISITOR.search(shown):
        return "wants to check that its visitor is a person"
    if _WANTS_SCRIPT.search(text):
        return "needs JavaScript to show its text"
    if weight(text) >= _HARDLY_ANY_TEXT or not page.xpath("//script[@src or string-length(text()) > 200]"):
        return None
    empty_root = any(weight(root.text_content()) < _HARDLY_ANY_TEXT for root in page.xpath(_APP_ROOT))
    wants_script = _WANTS_SCRIPT.search(_without_scripts(page))
    return "needs JavaScript to show its text" if wants_script or empty_root or not text.strip() else None


def _is_about_cookies(text: str) -> bool:
    """Whether most of a short text speaks of cookies; one that explains them at length is a page of its own."""
    paragraphs = [line for line in text.split("\n") if line.strip()]
    about = sum(len(line) for line in paragraphs if _COOKIES.search(line))
    return len(_COOKIES.findall(text)) >= 2 and about > 0.6 * sum(map(len, paragraphs))


def _without_scripts(page: Any) -> str:
    return " ".join(page.xpath("//body//text()[not(ancestor::script or ancestor::style)]"))


def weight(text: str) -> int:
    """Characters, a Han one counted as three, white space not at all."""
    return sum(map(len, text.split())) + 2 * sum(map(len, _HAN.findall(text)))


def _all_text(element: Any) -> str:
    return "".join(element.itertext()) if isinstance(element.tag, str) else ""

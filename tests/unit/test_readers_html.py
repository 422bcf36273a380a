"""Web pages: what a visitor reads, where it stands, and no shells."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import DocumentError
from tests.parsed_checks import assert_exact, block_with, parse, texts

LONG = "This paragraph says enough about the weather in the harbour to be taken for an article by any reader. " * 2
CHROME = "<nav><a href=/>MENU</a> <a href=/b>MENU</a></nav>"
PAGE = f"""<!doctype html><html lang="en-GB"><head><meta charset="utf-8"><title>Guide | Acme</title>
<meta property="og:site_name" content="Acme"><meta name="author" content="Ann Smith">
<meta property="article:published_time" content="2024-05-06T07:08:09Z">
<link rel="canonical" href="https://acme.example/guide"><style>p {{ STYLE: 1 }}</style></head>
<body>{CHROME}<main><h1>Guide</h1><p>{LONG}</p>
<h2>Install</h2><p>Run <code>acme</code> and see <a href="/x">the page</a>.</p>
<pre><code>pip install acme
  acme --run</code></pre><ul><li>First</li><li>Second<ul><li>Inner</li></ul></li></ul><ol><li>One</li><li>Two</li></ol>
<h2>Prices</h2><table>
<thead><tr><th rowspan=2>Item</th><th colspan=2>2024</th></tr><tr><th>Q1</th><th>Q2</th></tr></thead>
<tr><td rowspan=2>Alpha</td><td>1</td><td>2</td></tr><tr><td>3</td><td>4</td></tr></table>
<p hidden>HIDDEN1</p><div style="color:red; display: none">HIDDEN2</div><span style="font-size:0">HIDDEN3</span>
<template><p>HIDDEN4</p></template><p aria-hidden="true">HIDDEN5</p><p style="visibility:hidden">HIDDEN6</p>
<p style="opacity: 0">HIDDEN7</p><p style="opacity: 0.8">{LONG} Shown.</p>
<script>SCRIPT</script><noscript>NOSCRIPT</noscript>
</main><footer>FOOTER 2019</footer></body></html>"""


def test_a_page_keeps_its_structure() -> None:
    parsed = parse(PAGE, "guide.html")
    assert parsed.title == "Guide"
    assert dict(parsed.metadata) == {
        "author": "Ann Smith",
        "date": date(2024, 5, 6),
        "sitename": "Acme",
        "language": "en-GB",
        "canonical_url": "https://acme.example/guide",
    }
    assert block_with(parsed, "Run acme and see the page.").section == ("Guide", "Install")
    assert texts(parsed, "code") == ["pip install acme\n  acme --run"]
    assert texts(parsed, "list_item") == ["- First", "- Second", "- Inner", "1. One", "2. Two"]
    assert texts(parsed, "table_row") == ["Item: Alpha; 2024 Q1: 1; 2024 Q2: 2", "Item: Alpha; 2024 Q1: 3; 2024 Q2: 4"]
    assert block_with(parsed, "Q1: 3").section == ("Guide", "Prices")


def test_spans_that_ask_for_millions_of_cells_are_not_filled() -> None:
    rows = "".join(f"<tr><td rowspan=90 colspan=90>x{number}</td><td>y</td></tr>" for number in range(300))
    parsed = parse(f"<html><body><main><table>{rows}</table></main></body></html>", "a.html")
    assert "x299" in parsed.text
    assert len(parsed.text) < 300_000


def test_a_block_of_cells_is_said_once_a_row() -> None:
    rows = (
        "<tr><th>A</th><th>B</th><th>C</th></tr><tr><td rowspan=2 colspan=2>ab</td><td>1</td></tr><tr><td>2</td></tr>"
    )
    parsed = parse(f"<html><body><main><table>{rows}</table></main></body></html>", "a.html")
    assert texts(parsed) == ["A: ab; C: 1", "A: ab; C: 2"]


def test_nothing_is_read_that_a_visitor_does_not_see() -> None:
    parsed = parse(PAGE, "guide.html")
    assert "Shown." in parsed.text
    for absent in ("HIDDEN", "SCRIPT", "STYLE", "MENU", "FOOTER"):
        assert absent not in parsed.text


def test_a_page_hidden_behind_an_open_dialogue_is_still_the_page() -> None:
    assert "harbour" in parse(f'<html><body><div aria-hidden="true"><p>{LONG}</p></div></body></html>', "a.html").text


def test_a_short_page_is_read_whole_without_its_furniture() -> None:
    parsed = parse(f"<html><body>{CHROME}<div><h1>Contact</h1><p>Call 555-1234.</p></div></body></html>", "a.html")
    assert texts(parsed) == ["Contact", "Call 555-1234."]


def test_a_page_of_a_table_alone_keeps_its_rows() -> None:
    rows = "<tr><th>型号</th><th>价格</th></tr><tr><td>A1</td><td>100元</td></tr><tr><td>B2</td><td>90元</td></tr>"
    parsed = parse(f"<html><body>{CHROME}<main><table>{rows}</table></main></body></html>", "a.html")
    assert texts(parsed, "table_row") == ["型号: A1; 价格: 100元", "型号: B2; 价格: 90元"]
    assert "MENU" not in parsed.text


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8", "big5"])
@pytest.mark.parametrize("declared", ["header", "meta", "wrongly", "nowhere"])
def test_chinese_pages_are_read_whatever_is_declared(encoding: str, declared: str) -> None:
    name = {"wrongly": "iso-8859-1"}.get(declared, encoding)
    meta = f'<meta charset="{name}">' if declared in ("meta", "wrongly") else ""
    body = "<h1>山西品牌</h1><p>" + "本公司位于北京，主要生产工人和工具，欢迎光大客户前往。" * 5 + "</p>"
    data = f"<html><head>{meta}</head><body>{body}</body></html>".encode(encoding, errors="ignore")
    media_type = f"text/html; charset={name}" if declared == "header" else "text/html"
    assert "主要生" in parse(data, "a.html", media_type=media_type).text


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (
            '<body><noscript>You need to enable JavaScript to run this app.</noscript><div id="root"></div>'
            '<script src="/main.js"></script></body>',
            "JavaScript",
        ),
        ('<body><div id="app"></div><script src="/main.js"></script></body>', "JavaScript"),
        ('<body><p>请启用JavaScript以继续访问。</p><script src="/a.js"></script></body>', "JavaScript"),
        ('<body><h1>Sign in</h1><form>User <input name="u"><input type="password"></form></body>', "login"),
        ('<body><h1>用户登录</h1><form>密码<input type="password"></form></body>', "login"),
        (
            "<body><div><p>We use cookies to improve your visit. By continuing you consent to all cookies.</p>"
            "<button>Accept</button></div></body>",
            "cookie",
        ),
        ("<title>Just a moment...</title><body><p>Checking your browser before accessing.</p></body>", "person"),
    ],
)
def test_a_shell_is_refused_with_its_reason(page: str, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason) as raised:
        parse(f"<html>{page}</html>", "a.html")
    assert raised.value.status == "blocked"


def test_an_article_beside_a_login_form_and_a_cookie_banner_is_an_article() -> None:
    page = (
        '<html><body><header><form>Login <input type="password"></form></header><noscript>Enable JavaScript</noscript>'
        f'<article><h1>News</h1><p>{LONG}</p><p>{LONG}</p></article><div class="cookie-banner">We use cookies.</div>'
        '<script src="/main.js"></script></body></html>'
    )
    parsed = parse(page, "a.html")
    assert "harbour" in parsed.text
    assert "Login" not in parsed.text


def test_no_date_is_guessed_from_a_copyright_line() -> None:
    page = f"<html><body><article><p>{LONG}</p></article><footer>© 2019 Acme</footer></body></html>"
    assert "date" not in parse(page, "a.html").metadata


@pytest.mark.parametrize("page", ["", "<html></html>", "<html><body> </body></html>", "<!-- nothing -->"])
def test_a_page_without_text_is_empty(page: str) -> None:
    assert parse(page, "a.html").status == "empty"


def test_a_page_nested_without_end_is_refused() -> None:
    with pytest.raises(DocumentError, match="deep") as raised:
        parse("<div>" * 5_000 + "text" + "</div>" * 5_000, "a.html")
    assert raised.value.status == "too_large"


def test_a_deeply_nested_page_is_read() -> None:
    assert "harbour" in parse("<div>" * 600 + f"<p>{LONG}</p>" + "</div>" * 600, "a.html").text


_TAGS = [
    "<p>",
    "</p>",
    "<h2>",
    "<ul><li>",
    "<table><tr><th>",
    "<td>",
    "<pre>",
    "<br>",
    "words ",
    "中文",
    "&nbsp;",
    "\x00",
    "<div>",
]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(_TAGS), max_size=25).map("".join))
def test_offsets_of_any_page_are_exact(body: str) -> None:
    assert_exact(parse(f"<html><body>{body}</body></html>", "a.html"))

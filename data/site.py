"""The fictional company's web site: Markdown pages in a template with everything a real one has around its text."""

from __future__ import annotations

from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from data.book import Source, read_source

ADDRESS = "https://www.tidelark.example/"
PAGES = (
    "index",
    "products",
    "tl-1207",
    "tl-1422",
    "gs-2090",
    "release-notes",
    "warranty",
    "shipping",
    "faq",
    "support-zh",
)

WORDS = {
    "en": {
        "nav": (("index", "Home"), ("products", "Products"), ("release-notes", "Releases"), ("warranty", "Warranty"),
                ("shipping", "Shipping"), ("faq", "Help"), ("support-zh", "中文")),
        "skip": "Skip to the text",
        "cookies": "We use cookies to make this shop work and, if you allow it, to count visits.",
        "buttons": ("Allow all", "Only necessary", "Settings"),
        "by": "By {author}, {date}",
        "letter": "Three letters a year, no advertising. Subscribe with your e-mail address:",
        "send": "Subscribe",
        "see": "You may also like",
        "foot": "Tidelark Instruments, Pelikaankade 41, Rotterdam. Registered under 00 000 415. All rights reserved.",
        "legal": ("Imprint", "Privacy", "Terms", "Careers"),
    },
    "zh": {
        "nav": (("index", "English"), ("products", "产品"), ("support-zh", "支持"), ("faq", "常见问题（英文）")),
        "skip": "跳到正文",
        "cookies": "本网站使用 Cookie 以保证商城正常运行，并在您同意时统计访问量。",
        "buttons": ("全部允许", "仅必要", "设置"),
        "by": "{author}，{date}",
        "letter": "每年三封邮件，没有广告。请填写邮箱订阅：",
        "send": "订阅",
        "see": "您可能还想看",
        "foot": "汐雀仪器（苏州）有限公司，苏州工业园区青澜路 188 号。保留所有权利。",
        "legal": ("关于我们", "隐私", "条款", "招聘"),
    },
}  # fmt: skip

STYLE = """body { margin: 0; font: 17px/1.6 Georgia, serif; color: #16323a }
header, footer, .cookies { background: #0f6b70; color: white; padding: 1em 6vw }
header a, footer a { color: white; margin-right: 1.2em }
main { max-width: 46em; padding: 1em 6vw }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #b9cfd1; padding: .4em; text-align: left }
aside { background: #eef5f5; padding: 1em 6vw }
"""


def make_site(source: Path, target: Path, *, address: str = ADDRESS) -> None:
    """Writes the pages, their style, robots.txt and a sitemap whose addresses begin with `address`."""
    target.mkdir(parents=True, exist_ok=True)
    pages = {name: read_source(source / f"{name}.md") for name in PAGES}
    for name, page in pages.items():
        (target / f"{name}.html").write_text(_page(name, page), encoding="utf-8")
    (target / "style.css").write_text(STYLE, encoding="utf-8")
    robots = f"User-agent: *\nDisallow: /cart\nDisallow: /account\n\nSitemap: {address}sitemap.xml\n"
    (target / "robots.txt").write_text(robots, encoding="utf-8")
    (target / "sitemap.xml").write_text(_sitemap(pages, address), encoding="utf-8")


def _sitemap(pages: dict[str, Source], address: str) -> str:
    entries = "".join(
        f"  <url><loc>{address}{name}.html</loc><lastmod>{page.header['date']}</lastmod></url>\n"
        for name, page in pages.items()
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
    return f"{head}{entries}</urlset>\n"


def _page(name: str, page: Source) -> str:
    head, words = page.header, WORDS[page.header["language"]]
    links = "\n      ".join(f'<a href="{target}.html">{text}</a>' for target, text in words["nav"])
    buttons = " ".join(f'<button type="button">{text}</button>' for text in words["buttons"])
    legal = " ".join(f'<a href="#{number}" rel="nofollow">{text}</a>' for number, text in enumerate(words["legal"]))
    more = "\n        ".join(
        f'<li><a href="{target}.html">{text}</a></li>' for target, text in words["nav"][1:4] if target != name
    )
    text = MarkdownIt("commonmark").enable("table").render(page.body)
    byline = str(words["by"]).format(
        author=head["author"], date=f'<time datetime="{head["date"]}">{head["date"]}</time>'
    )
    title = escape(head["title"])
    return f"""<!DOCTYPE html>
<html lang="{head["language"]}">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{title} | Tidelark</title>
  <meta name="description" content="{escape(head["description"])}">
  <meta name="author" content="{head["author"]}">
  <meta property="article:published_time" content="{head["date"]}">
  <link rel="canonical" href="{name}.html">
  <link rel="stylesheet" href="style.css">
</head>
<body>
  <a class="skip" href="#text">{words["skip"]}</a>
  <div class="cookies" role="dialog" aria-label="cookies"><p>{words["cookies"]}</p> {buttons}</div>
  <header>
    <nav>
      {links}
    </nav>
  </header>
  <main id="text">
    <article>
{text.replace("</h1>", f"</h1>{chr(10)}<p class={chr(34)}byline{chr(34)}>{byline}</p>", 1)}    </article>
  </main>
  <aside>
    <form action="/account" method="post"><label>{words["letter"]} <input name="mail" type="email"></label>
      <button>{words["send"]}</button></form>
    <section><p>{words["see"]}</p>
      <ul>
        {more}
      </ul></section>
  </aside>
  <footer>
    <p>{words["foot"]}</p>
    <p>{legal}</p>
  </footer>
</body>
</html>
"""

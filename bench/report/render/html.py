"""A page of Markdown as an HTML file that needs no other file but the figures that it shows."""

import html
from typing import Any, Final

STYLE: Final = """
:root { color-scheme: light dark; --text: #1b1b1b; --back: #fff; --line: #d0d0d0; --band: #f5f5f5; --link: #0057a8 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --back: #161616; --line: #444; --band: #202020; --link: #7ab8ff }
  img { background: #fff }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 0 auto;
  max-width: 70rem; padding: 1rem }
a { color: var(--link) }
h1, h2, h3 { line-height: 1.2 }
img { max-width: 100% }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; vertical-align: top }
th { border-bottom: 2px solid var(--text); text-align: left }
tbody tr:nth-child(even) { background: var(--band) }
@media print { body { max-width: none } .wide { overflow: visible } }
"""


def page(title: str, text: str) -> str:
    """The whole file, of a page in GitHub-flavoured Markdown. Raw HTML in it is shown as text.

    Links to other Markdown files of the report, which are relative, go to their HTML files.
    """
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            body(text).rstrip(),
            "</body>",
            "</html>",
            "",
        )
    )


def body(text: str) -> str:
    """Markdown as HTML elements."""
    renderer = _renderer()
    tokens = renderer.parse(text)
    for token in (each for block in tokens for each in [block, *(block.children or [])]):
        href = token.attrGet("href") if token.type == "link_open" else None
        if isinstance(href, str) and href.endswith(".md") and "://" not in href and not href.startswith("/"):
            token.attrSet("href", href.removesuffix(".md") + ".html")
    return str(renderer.renderer.render(tokens, renderer.options, {}))


def _renderer() -> Any:
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    rules: Any = renderer.renderer
    rules.rules["table_open"] = lambda *_: '<div class="wide"><table>\n'
    rules.rules["table_close"] = lambda *_: "</table></div>\n"
    return renderer

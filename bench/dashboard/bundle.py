"""The files of the site: pages and scripts as they lie in ``site/``, plotly, and the data as scripts."""

from collections.abc import Iterator, Mapping
from html import escape
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any, Final

from bench.dashboard.details import to_json
from engines.core.errors import Unsupported

SITE: Final = Path(__file__).parent / "site"
FIRST: Final = ("dom.js", "rows.js", "filters.js", "table.js", "plot.js", "traces.js", "app.js")
"""Scripts in the order in which they must be loaded; the pages come after them, by name."""
START: Final = "shardbench.start();"


def scripts() -> list[str]:
    """Paths of all scripts relative to ``site/``, in their order."""
    return [*FIRST, *sorted(path.relative_to(SITE).as_posix() for path in (SITE / "pages").glob("*.js"))]


def plotly() -> str:
    """plotly's script, of the installed package.

    Raises:
        Unsupported: plotly is not installed.
    """
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise Unsupported("the dashboard's charts need plotly; install shardbench[dashboard]")
    return (Path(found.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def folder(title: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Path and text of each file of the site; ``data`` is a value, or a text that is already packed, by its name.

    Raises:
        Unsupported: plotly is not installed.
    """
    yield "plotly.min.js", plotly()
    for name in ("style.css", *scripts()):
        yield name, (SITE / name).read_text(encoding="utf-8")
    for name, value in data.items():
        yield f"data/{name}.js", f"shardbench.data({_safe(name)},{_safe(value)});\n"
    loaded = "\n".join(f'<script src="{name}"></script>' for name in scripts())
    yield "index.html", _page(title, '<link rel="stylesheet" href="style.css">', f"{loaded}\n<script>{START}</script>")


def one_file(title: str, data: Mapping[str, Any]) -> Iterator[str]:
    """The page that has all of it inside, in pieces.

    Raises:
        Unsupported: plotly is not installed.
    """
    mark = "<!-- all -->"
    style = (SITE / "style.css").read_text(encoding="utf-8")
    before, after = _page(title, f"<style>\n{style}</style>", mark).split(mark)
    yield before
    yield f'<script type="text/plain" id="plotly">{_inside(plotly())}</script>\n'
    for name, value in data.items():
        yield f'<script type="application/json" id="data/{escape(name)}">{_safe(value)}</script>\n'
    for name in scripts():
        yield f"<script>\n{_inside((SITE / name).read_text(encoding='utf-8'))}</script>\n"
    yield f"<script>{START}</script>"
    yield after


def _page(title: str, styles: str, loaded: str) -> str:
    template = Template((SITE / "index.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), styles=styles, scripts=loaded)


def _safe(value: Any) -> str:
    """JSON without what could end a script element."""
    return to_json(value).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _inside(script: str) -> str:
    """A script as part of a page: nothing in its texts ends the element."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")

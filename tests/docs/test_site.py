"""The site builds without the network, loads nothing from elsewhere, and leaves out nothing that it refers to."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.cli.main import COMMANDS
from bench.rows.labels import read_rows
from bench.rows.metrics import METRICS
from bench.rows.pairing import pair_errors, pair_up
from bench.sweep.catalog import names
from engines.core.row import Row
from engines.published.table import tables

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("http:", "https:", "//")


class Loaded(HTMLParser):
    """The addresses that a browser fetches to show a page: of everything but the links that a reader follows."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [
            value
            for name, value in attrs
            if value and (name in ("src", "srcset") or (name == "href" and tag == "link"))
        ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as ``make docs`` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def text_of(page):
    return re.sub(r"<[^>]*>", "", page.read_text())


def test_no_page_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text())
        assert loaded.addresses
        assert not [address for address in loaded.addresses if address.startswith(ELSEWHERE)], page
        assert 'class="mermaid"' not in page.read_text()  # which Material would load from elsewhere


def test_no_style_loads_anything_from_elsewhere(site):
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        addresses = re.findall(r"""(?:url\(|@import)\s*["']?([^"')]+)""", style.read_text())
        assert not [address for address in addresses if address.startswith(ELSEWHERE)], style


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("metrics", list(METRICS)),
        ("rows", [field.name for field in fields(Row)]),
        ("commands", [f"shardbench {name}" for name in COMMANDS]),
        ("choices", [name for group in ("model", "hw", "runtime", "sweep") for name in names(group)]),
        ("configuration", [f"engine={name}" for name in names("engine")]),
        ("published", list(tables())),
        ("python", [f"bench.{name}" for name in ("ask", "ask_all", "load", "plot", "estimate.estimate", "Row")]),
    ],
)
def test_the_reference_is_complete(site, page, words):
    text = text_of(site / "reference" / f"{page}.html")
    assert not [word for word in words if word not in text]


@pytest.mark.parametrize("path", ["config.yaml", *(f"engine/{name}.yaml" for name in names("engine"))])
def test_every_key_of_a_config_is_in_the_reference(site, path):
    from omegaconf import OmegaConf

    prefix = path.partition("/")[0] + "." if "/" in path else ""
    keys = {str(key) for key in OmegaConf.load(ROOT / "conf" / path)} - {"defaults", "hydra", "_target_", "name"}
    code = re.findall(r"<code>([^<]+)</code>", (site / "reference" / "configuration.html").read_text())
    assert {f"{prefix}{key}" for key in keys} <= set(code)


def test_every_key_of_a_row_has_a_meaning(site):
    cells = re.findall(r"<tr>\s*<td><code>(\w+)</code></td>\s*<td>.*?</td>\s*<td>(.*?)</td>", rows_page(site))
    assert [name for name, _ in cells] == [field.name for field in fields(Row)]
    assert not [name for name, meaning in cells if not meaning]


def rows_page(site):
    return (site / "reference" / "rows.html").read_text()


def test_the_accuracy_page_says_what_the_rows_say(site):
    rows = [row for store in ("reference", "studies") for row in read_rows(str(ROOT / "results" / store))]
    pairs = pair_up(rows)
    text = (site / "accuracy.html").read_text()
    for engine in {pair.answer.engine for pair in pairs}:
        errors = pair_errors(pair for pair in pairs if pair.answer.engine == engine)
        cells = (engine, "all", "all", "all", str(errors.n), f"{errors.mean:.1%}", f"{errors.median:.1%}")
        assert re.search(r"\s*".join(f"<td>{re.escape(cell)}</td>" for cell in cells), text)
    assert "{{" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_docstrings_stand_where_pages_name_them(site):
    explanation = text_of(site / "explanation" / "closed-forms.html")
    assert "size · (k − 1)/k / bandwidth" in explanation
    assert not [page for page in site.rglob("*.html") if ":::" in text_of(page)]


def test_the_worked_example_is_right_by_hand(site):
    text = text_of(site / "explanation" / "compiled-timeline.html")
    compute, send = 2 * 42_000 / 1.05e9, 1e-6 + 2 * 2**20 / (0.77 * 45e9)
    exposed = send - compute / 2
    assert exposed > 0
    for name, seconds in (("compute", compute), ("and exposed", exposed), ("total", compute + exposed)):
        assert f"{name} {seconds * 1e6:.1f} µs" in text


def test_a_docstring_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "generate")
    import docstrings

    with pytest.raises(LookupError, match="no_such_name"):
        docstrings.expand("::: engines.analytic.cost.no_such_name")

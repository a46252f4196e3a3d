"""README and its kin: short, with links that lead somewhere."""

import re
from pathlib import Path
from typing import get_args

import pytest

from bench.importers.formats import FORMATS
from bench.rows.labels import SOURCES
from engines.core.layout import ATTN_SHARDINGS, COLLECTIVES, FFN_LAYOUTS, PARTITIONERS
from engines.core.row import Status

STATUSES = get_args(Status)
ROOT = Path(__file__).parents[2]
PAPERS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"]


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 5_000


@pytest.mark.parametrize("name", PAPERS)
def test_links_lead_to_files(name):
    paper = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)", paper.read_text()):
        assert target.startswith("https://") or (paper.parent / target).exists(), target


def test_recipes_name_files_that_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:engines|bench|conf|docs|tests|examples)/[\w/.-]+)`", text))
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists() and "NAME" not in name]


def test_the_first_page_leads_to_every_other():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    written = [page for page in pages if page.parts[0] in ("how-to", "tutorial", "explanation")]
    assert [page for page in written if f"({page})" not in index and f"({page}#" not in index] == []


def test_the_changelog_has_the_version_that_is_built():
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    log = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{version}]" in log
    assert log.index("## [Unreleased]") < log.index(f"## [{version}]")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("how-to/import.md", list(FORMATS)),
        ("explanation/layouts.md", [*FFN_LAYOUTS, *ATTN_SHARDINGS, *COLLECTIVES, *PARTITIONERS]),
        ("explanation/evidence.md", [*SOURCES, *STATUSES]),
    ],
)
def test_a_written_page_names_every_choice(page, words):
    text = (ROOT / "docs" / page).read_text()
    assert not [word for word in words if word != "auto" and f"`{word}" not in text and f"| {word} |" not in text]


@pytest.mark.parametrize("room", ["bench", "engines", "engines/compiled", "engines/transformer"])
def test_the_architecture_names_every_room(room):
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = {path.parent.name for path in (ROOT / room).glob("*/__init__.py")}
    assert folders
    assert not [name for name in folders if not re.search(rf"`(?:\w+/)*{name}\b", text)]


def test_the_architecture_names_no_module_that_is_gone():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    modules = {path.stem for top in ("bench", "engines") for path in (ROOT / top).rglob("*.py")}
    rows = [line.split("|")[1:-2] for line in text.splitlines() if line.startswith("| ")]
    named = {name for row in rows for cell in row for name in re.findall(r"`(\w+)`", cell)}
    folders = {path.parent.name for top in ("bench", "engines") for path in (ROOT / top).rglob("__init__.py")}
    assert named - modules - folders - {"conf", "docs", "examples", "perf", "tests"} == set()

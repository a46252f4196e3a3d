"""The MkDocs hook: pages that are made from the code, the configs and the stored rows when the site is built.

None of these pages is in the repository, so they can't disagree with what they describe. A line ``::: a.b.name`` of a
written page is replaced by the docstring of that module, class or function.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import accuracy
import commands
import configuration
import docstrings
import metrics
import published
import python_api
import rows
import stored_tables
import worked_example
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).parents[2]
PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/commands.md": commands.page,
    "reference/configuration.md": configuration.page,
    "reference/choices.md": configuration.choices_page,
    "reference/metrics.md": metrics.page,
    "reference/rows.md": rows.page,
    "reference/published.md": published.page,
    "reference/python.md": python_api.page,
    "accuracy.md": accuracy.page,
}
IMAGES: Final[dict[str, Callable[[], bytes]]] = {
    "assets/figure9.png": (ROOT / "reports/reference/figures/figure9_mfu_over_latency.png").read_bytes,
}
AT_THE_ROOT: Final = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and figures, and the papers that stand at the root of the repository."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    for path, image in IMAGES.items():
        files.append(File.generated(config, path, content=image()))
    for path, content in accuracy.figures().items():
        files.append(File.generated(config, path, content=content))
    for name in AT_THE_ROOT:
        # Their links are relative to the root of the repository, where the pages are under docs/.
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put docstrings in the place of ``:::`` lines, and the worked example and stored tables in theirs.

    Raises:
        LookupError: there is no such module, name or table, or it has no docstring.
    """
    return docstrings.expand(worked_example.expand(stored_tables.expand(markdown)))

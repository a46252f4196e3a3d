"""The reference of rows: every key with its type and its meaning."""

import inspect
import re
from dataclasses import fields
from typing import Any

import point_keys
from metrics import escaped

from bench.rows.metrics import METRICS
from engines.core import row
from engines.core.row import Row


def page() -> str:
    """``reference/rows.md``."""
    lines = [
        "# Rows",
        "",
        f"The one format of all answers, version {row.SCHEMA_VERSION} (`schema_version`). A row is one line of JSON in "
        "`RESULTS_DIR/rows/*.jsonl`. [How to read one](../explanation/evidence.md#how-to-read-a-row).",
        "",
    ]
    types = {field.name: _kind(field.type) for field in fields(Row)}
    meanings = _meanings()
    for heading, names in _groups():
        lines += [f"## {heading}", "", "| key | type | meaning |", "|---|---|---|"]
        for name in names:
            lines.append(f"| `{name}` | `{escaped(types[name])}` | {escaped(meanings.get(name, ''))} |")
        lines.append("")
    return "\n".join(lines)


def _kind(annotation: Any) -> str:
    """``str | None`` as ``str or None``: a bar would end the table's cell."""
    return (annotation.__name__ if isinstance(annotation, type) else str(annotation)).replace(" | ", " or ")


def _groups() -> list[tuple[str, list[str]]]:
    """The keys as the class groups them, each group under the comment before it."""
    found: list[tuple[str, list[str]]] = []
    for line in inspect.getsource(Row).splitlines():
        if comment := re.match(r"    # (.+)\.$", line):
            found.append((comment[1], []))
        elif (key := re.match(r"    (\w+): ", line)) and found:
            found[-1][1].append(key[1])
    return found


def _meanings() -> dict[str, str]:
    """A key's formula in the registry, else its meaning in the point's schema, else the comment beside its field."""
    beside = dict(re.findall(r"^    (\w+): .*?  # (.+)$", inspect.getsource(Row), re.MULTILINE))
    return beside | point_keys.meanings() | {metric.name: metric.formula for metric in METRICS.values()}

"""Answers that a version stands for: as long as the version is the same, so are they.

A table under ``tests`` holds the version and the answers. ``WRITE_ANSWERS=1 pytest FILE`` writes it anew, which it only
does once the version in the code has been raised, or for answers that were not there before.
"""

import json
import os
from pathlib import Path

import pytest

TOLERANCE = 1e-12
"""Relative."""


def check(path: Path, constant: str, version: int, answers: dict[str, list[float]]) -> None:
    """Fail unless the table holds this version and these answers."""
    stored = json.loads(path.read_text()) if path.exists() else {"version": None, "answers": {}}
    before = stored["answers"]
    other = [name for name in before if name not in answers or not _equal(before[name], answers[name])]
    how = f"WRITE_ANSWERS=1 python -m pytest {Path(*path.parts[-4:-2])} writes {path.name} anew"
    if other and version == stored["version"]:
        pytest.fail(f"{other[0]} is {answers.get(other[0])}, and was {before[other[0]]}: raise {constant}; then {how}")
    if os.environ.get("WRITE_ANSWERS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"version": version, "answers": answers}, indent=1) + "\n")
    elif version != stored["version"] or set(answers) != set(before):
        pytest.fail(f"{path.name} is of {constant}={stored['version']}, and {version} is here: {how}")


def rounded(value: float) -> float:
    """To 15 significant digits, so that the table does not differ with the last bit of a sum."""
    return float(f"{value:.15g}")


def _equal(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and all(
        abs(left - right) <= TOLERANCE * abs(left) for left, right in zip(one, other, strict=True)
    )

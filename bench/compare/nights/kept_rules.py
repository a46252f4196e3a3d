"""The rules by which nights were judged, kept beside them, so that a page of them says what the night said."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.compare.nights.steps import StepRules
from bench.rows.atomic import replaced
from engines.core.errors import InvalidRequest

NAME: Final = "rules.json"
THRESHOLD: Final = 0.05
KEYS: Final = ("false_alarms", "smallest_step", "threshold")


def keep(folder: Path, steps: StepRules, threshold: float) -> None:
    """Write the rules of the newest night into the folder of the nights.

    Raises:
        InvalidRequest: the folder cannot be written.
    """
    content = {"false_alarms": steps.false_alarms, "smallest_step": steps.smallest, "threshold": threshold}
    with replaced(folder / NAME) as aside:
        aside.write_text(json.dumps(content) + "\n", encoding="utf-8")


def rules_for(folder: Path, given: Mapping[str, float | None]) -> tuple[StepRules, float]:
    """Rules and threshold: what is ``given`` of :data:`KEYS`, else what the folder's nights were judged by, else usual.

    Raises:
        InvalidRequest: the folder's file is damaged.
    """
    kept: dict[str, float] = {}
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        kept = {name: float(content[name]) for name in KEYS}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest("results_dir", folder, f"has a damaged {NAME} ({error})", f"remove {NAME}") from None
    usual = StepRules()
    found = {"false_alarms": usual.false_alarms, "smallest_step": usual.smallest, "threshold": THRESHOLD} | kept
    found |= {name: value for name, value in given.items() if value is not None and name in KEYS}
    return StepRules(false_alarms=found["false_alarms"], smallest=found["smallest_step"]), found["threshold"]

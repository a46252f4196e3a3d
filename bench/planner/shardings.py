"""Where a point's shardings come from: a file, or a plan made for a point that an engine shall run."""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from bench.sweep.paths import path_of
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.point import Point
from engines.core.shardings import Shardings

RUNS_PLANS: Final = ("compiled", "jax")
"""Engines that run shardings, and do not make them."""


def with_shardings(point: Point) -> Point:
    """The point with its plan, where ``planner=alpa`` asks an engine to run one, and the compiler partitions by it.

    A point of which no plan can be made stays as it is; the engine refuses it.
    """
    if point.planner != "alpa" or point.shardings is not None or point.engine not in RUNS_PLANS:
        return point
    text = _plan(replace(point, engine="analytic", partitioner="manual"))
    return point if text is None else replace(point, shardings=text, partitioner="gspmd")


@lru_cache(maxsize=64)
def _plan(point: Point) -> str | None:
    from engines.analytic.alpa.planner import planned

    try:
        point.check()
        return planned(point, stages=False).shardings.text
    except ShardbenchError:
        return None


def read_shardings(value: Any) -> Any:
    """The key ``shardings``: the text of a plan, of a file where it names one; other values as they are.

    Raises:
        InvalidRequest: the file cannot be read, or holds no plan.
    """
    if not isinstance(value, str) or not value.endswith(".json"):
        return value
    path, content = Path(path_of("shardings", value)), None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        reason = 'has no key "shardings"'
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except ValueError as error:
        reason = f"is no JSON: {error}"
    if not isinstance(content, dict) or "shardings" not in content:
        raise InvalidRequest("shardings", value, reason, "write one with shardbench plan planner=alpa out=FILE")
    return Shardings.read(content["shardings"]).text

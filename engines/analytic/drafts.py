"""Speculative decoding as passes: the model verifies, and a draft, another model or its own first layers, proposes.

A turn is γ passes of one token by the draft and one of γ + 1 tokens by the model (Leviathan, Kalman and Matias 2023,
section 3). How many turns a batch takes follows from the acceptance rate (:mod:`engines.core.speculation`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from engines.analytic.grid import Grid, grid_of
from engines.core.draft_point import beside, first_layers_of
from engines.core.point import Point
from engines.core.speculation import turns_until

KEYS: Final = ("draft_model", "draft_len", "draft_layers", "acceptance_rate")


@dataclass(frozen=True, slots=True)
class Asked:
    """``points`` and behind them their drafts, as a ``grid``.

    ``draft`` is the place of a point's draft, ``turns`` those of a point that speculates.
    """

    points: Sequence[Point]
    grid: Grid
    draft: dict[int, int]
    turns: dict[int, float]


def draft_of(point: Point) -> Point | None:
    """The decoding that proposes tokens; None where nothing passes a model for it."""
    nothing: dict[str, Any] = dict.fromkeys(KEYS)
    # Those that propose pass once for each token, so they stay on the chip where other layers come from the host.
    plain = replace(point, speculative="none", offload="none", offload_kv="none", **nothing)
    if point.speculative == "draft":
        assert point.draft_model is not None
        return beside(plain, point.draft_model)
    if point.speculative == "self":
        assert point.draft_layers is not None
        first = first_layers_of(point.model, point.draft_layers)
        return replace(beside(plain, first), pruning=point.pruning)
    return None


def asked(points: Sequence[Point]) -> Asked:
    """Points with their drafts.

    Raises:
        InvalidRequest: no such slice exists.
        Unsupported: the chip has no datasheet, or no peak for the activations' dtype.
    """
    every, place, turns = list(points), dict[int, int](), dict[int, float]()
    for index, point in enumerate(points):
        if point.speculative == "none":
            continue
        rate, count = point.acceptance_rate or 0.0, point.draft_len or 0
        turns[index] = turns_until(rate, count, point.decode_steps, point.batch_size)
        draft = draft_of(point)
        if draft is not None:
            place[index] = len(every)
            every.append(draft)
    grid = grid_of(every)
    if not turns:
        return Asked(every, grid, place, turns)
    passes, tokens = np.array(grid.passes), np.array(grid.pass_tokens)
    for index, taken in turns.items():
        length = points[index].draft_len or 0
        passes[index], tokens[index] = taken, length + 1
        if index in place:
            passes[place[index]] = taken * length
    return Asked(every, replace(grid, passes=passes, pass_tokens=tokens), place, turns)

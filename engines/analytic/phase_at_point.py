"""One phase of one point out of a grid's arrays, and what it is told where it does not fit."""

from copy import copy
from typing import Any

import numpy as np

from engines.analytic.predict import PredictedPhase
from engines.core.point import Point

COST = ("compute_s", "memory_s", "communication_s", "overlapped_s", "overhead_s")
MEMORY = ("peak_hbm_bytes", "weights_bytes", "kv_cache_bytes", "activations_bytes", "usable_bytes")


class PhaseAtPoint:
    """One phase of one point as plain numbers and names."""

    def __init__(self, phase: PredictedPhase, index: int, keys: dict[str, Any], name: str) -> None:
        self.name = name
        self.cost = {name: value_at(getattr(phase.cost, name), index) for name in (*COST, "latency_s")}
        self.memory = {name: value_at(getattr(phase.memory, name), index) for name in MEMORY}
        self.keys = keys

    def with_draft(self, draft: "PhaseAtPoint", shared: bool) -> "PhaseAtPoint":
        """The phase and that of its draft one after the other, whose weights and cache are the model's if ``shared``.

        A prefill of the first layers is part of the model's.
        """
        both = copy(self)
        runs = not (shared and self.name == "prefill")
        both.cost = {name: value + draft.cost[name] * runs for name, value in self.cost.items()}
        held = {name: 0.0 if shared else draft.memory[name] for name in ("weights_bytes", "kv_cache_bytes")}
        both.memory = {name: value + held.get(name, 0.0) for name, value in self.memory.items()}
        both.memory["peak_hbm_bytes"] += sum(held.values())
        return both


def value_at(array: Any, index: int) -> float:
    """An entry of an array of points, or the one that holds for all of them."""
    return float(array[index] if np.size(array) > 1 else np.ravel(array)[0])


def oom_message(point: Point, answer: PhaseAtPoint, missing: float) -> str:
    """How much memory is missing, and what would fit."""
    bytes_of = answer.memory
    usable = bytes_of["usable_bytes"]
    message = (
        f"needs {bytes_of['peak_hbm_bytes'] / 1e9:.1f} GB of a chip's usable {usable / 1e9:.1f} GB, "
        f"{missing / 1e9:.1f} GB too much"
    )
    per_sequence = (bytes_of["kv_cache_bytes"] + bytes_of["activations_bytes"]) / point.batch_size
    batch = int((usable - bytes_of["weights_bytes"]) / per_sequence)
    if batch >= 1:
        return f"{message}; a batch of about {batch} fits"
    if bytes_of["weights_bytes"] <= usable:
        return f"{message}; beside the weights not one sequence fits: use fewer tokens, or more chips"
    chips = int(np.ceil(point.num_chips * bytes_of["weights_bytes"] / usable))
    return f"{message}; the weights alone need more than {chips - 1} such chips, or a smaller weight_dtype"

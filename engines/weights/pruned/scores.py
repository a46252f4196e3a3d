"""How much each part of a model matters: the parts with the highest scores stay."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from engines.core.model import Model
from engines.core.pruning import head_groups
from engines.weights.random import Floats, Source, tensors, values

By = Literal["magnitude", "activation"]
BY: Final[tuple[str, ...]] = ("magnitude", "activation")
OF_HEADS: Final = ("q", "k", "v", "o", "q_b", "k_b", "v_b")
"""Matrices of attention with an axis of heads; of q_b, k_b, v_b and o of latent attention it is the same."""
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LayerScores:
    """Of one layer: ``heads`` [units of heads], the layer itself, and of each feed-forward by name its columns.

    A feed-forward is named by the prefix of its tensors: "", "experts." (columns [experts, width]) or "shared.".
    """

    heads: Scores
    columns: Mapping[str, Scores]
    layer: float


def by_magnitude(model: Model, source: Source, number: int) -> LayerScores:
    """Sums of squares: of all weights of a head or of a column; of a layer those that join the residual stream."""
    prefix, specs = f"layers.{number}.", tensors(model)
    held = {name.removeprefix(prefix): spec for name, spec in specs.items() if name.startswith(prefix)}

    def squares(name: str) -> Scores:
        read: Floats = values(held[name], source)
        return np.square(read, dtype=np.float64)

    heads = np.zeros(head_groups(model))
    for name in OF_HEADS:
        if name in held:
            axis = 0 if name == "o" else 1
            sums = squares(name).sum(tuple(each for each in range(3) if each != axis))
            heads = heads + by_unit(model, sums)
    columns = {}
    for lead in leads(held):
        inputs = [name for name in ("gate", "up", "wi") if lead + name in held]
        found = sum(squares(lead + name).sum(-2) for name in inputs) + squares(f"{lead}wo").sum(-1)
        columns[lead] = np.asarray(found)
    joins = sum(float(squares(name).sum()) for name in ("o", *(f"{lead}wo" for lead in leads(held))))
    return LayerScores(heads, columns, joins)


def by_unit(model: Model, of_heads: Scores) -> Scores:
    """Sums over the heads of each unit that stays or goes as one; a lone key/value head adds alike to all."""
    units = head_groups(model)
    if of_heads.size < units:
        return np.full(units, of_heads.sum() / units)
    summed: Scores = of_heads.reshape(units, -1).sum(-1)
    return summed


def leads(held: Mapping[str, object]) -> list[str]:
    """Prefixes of the names of a layer's feed-forwards."""
    return [name.removesuffix("wo") for name in held if name.endswith("wo")]

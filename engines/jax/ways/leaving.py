"""A token leaves where the head is sure of the next one."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.core.engine import Facts
from engines.jax.arrays import gathered
from engines.jax.ways.steps import Steps
from engines.transformer.generate.early_exit import FORCED, exits_of, make_leaving_decode


class Leaving(Steps):
    """Decodes with exits; what it makes is compared with the whole model's, and checked with its own exits."""

    def whole(self) -> Any:
        """See :class:`engines.jax.ways.steps.Steps`; it counts the layers that tokens passed."""
        work, exits = self.work, exits_of(self.work.point, self.work.settings.seed)
        return make_leaving_decode(work.plan, work.mesh, work.point.decode_steps, exits, work.sampling)

    def layers(self, rows: NDArray[np.int64], time: int) -> NDArray[np.int64] | None:
        """See :class:`engines.jax.ways.steps.Steps`."""
        passed = np.full((len(rows), time), self.work.point.model.num_layers)
        decoded = gathered(self.counted[0]).T[rows]
        passed[:, time - decoded.shape[1] :] = decoded
        return passed

    def told(self, facts: Facts) -> Facts:
        """How many layers tokens passed, on average, and a step until its last token left."""
        if not self.counted:
            return facts
        layers = gathered(self.counted[0])
        passed, tokens = np.unique(layers, return_counts=True)
        details: dict[str, Any] = {
            "layers_of_a_step": float(layers.max(axis=1).mean()),
            "tokens_by_layers": dict(zip(map(str, passed.tolist()), tokens.tolist(), strict=True)),
        }
        forced = self.work.point.exit_rate is not None
        return replace(
            facts,
            mean_layers=float(layers.mean()),
            resolved={**facts.resolved, **({} if forced else {"exit_rate": self._rate(layers)})},
            details={**facts.details, **details, **({"outputs": FORCED} if forced else {})},
        )

    def _rate(self, layers: NDArray[np.int64]) -> float:
        """Share of the tokens that came to an exit layer and left there, of all exit layers."""
        whole, every = self.work.point.model.num_layers, self.work.point.exit_every or 0
        layers = layers[layers > 0]  # behind a stop token no step runs
        left = int((layers < whole).sum())
        came = np.where(layers < whole, layers // every, -(-whole // every) - 1)
        return left / max(1, int(came.sum()))

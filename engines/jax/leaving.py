"""A point whose tokens leave early, compiled and loaded."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from engines.core.engine import Facts
from engines.jax.devices import out_of_memory
from engines.jax.program import JaxProgram, gathered
from engines.transformer.generate.early_exit import FORCED, exits_of, make_leaving_decode


class LeavingProgram(JaxProgram):
    """Decodes with exits; what it makes is compared with the whole model's, and checked with its own exits."""

    layers: jax.Array | None = None

    def _prepare_decode(self) -> None:
        exits = exits_of(self.point, self.settings.seed)
        decode = make_leaving_decode(self.plan, self.mesh, self.point.decode_steps, exits, self.settings.sampling)
        self._compile("decode", decode, (self.weights, self.cache, self.first, self.position), True)

    def _decode(self) -> None:
        with out_of_memory(self.point):
            made = self.calls["decode"](self.weights, self.cache, self.first, self.position)
            tokens, scores, self.cache, self.layers = made
            self.decoded = jax.block_until_ready((tokens, scores))
            jax.block_until_ready(self.cache)

    def _layers(self, rows: NDArray[np.int64], time: int) -> NDArray[np.int64] | None:
        assert self.layers is not None
        passed = np.full((len(rows), time), self.point.model.num_layers)
        decoded = gathered(self.layers).T[rows]
        passed[:, time - decoded.shape[1] :] = decoded
        return passed

    def facts(self) -> Facts:
        """As of any program; and how many layers tokens passed, on average, and a step until its last token left."""
        found = super().facts()
        if self.layers is None:
            return found
        layers = gathered(self.layers)
        passed, tokens = np.unique(layers, return_counts=True)
        details: dict[str, Any] = {
            "layers_of_a_step": float(layers.max(axis=1).mean()),
            "tokens_by_layers": dict(zip(map(str, passed.tolist()), tokens.tolist(), strict=True)),
        }
        forced = self.point.exit_rate is not None
        return replace(
            found,
            mean_layers=float(layers.mean()),
            resolved={**found.resolved, **({} if forced else {"exit_rate": self._rate(layers)})},
            details={**found.details, **details, **({"outputs": FORCED} if forced else {})},
        )

    def _rate(self, layers: NDArray[np.int64]) -> float:
        """Share of the tokens that came to an exit layer and left there, of all exit layers."""
        whole, every = self.point.model.num_layers, self.point.exit_every or 0
        left = int((layers < whole).sum())
        came = np.where(layers < whole, layers // every, -(-whole // every) - 1)
        return left / int(came.sum())

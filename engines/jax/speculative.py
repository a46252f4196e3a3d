"""A point that decodes speculatively, compiled and loaded: all turns are one timed program."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from engines.core.engine import Facts
from engines.core.point import Point
from engines.jax.devices import out_of_memory
from engines.jax.program import JaxProgram, gathered
from engines.jax.quality import Quality
from engines.jax.settings import Settings
from engines.transformer.layers.kv_cache import Caches, make_cache
from engines.transformer.params.tree import Parameters
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_prefill
from engines.transformer.speculation.draft import draft_plan
from engines.transformer.speculation.options import speculation_of
from engines.transformer.speculation.programs import make_speculative_decode
from engines.transformer.speculation.propose import Both
from engines.transformer.speculation.turns import Count
from engines.weights.random import Source

FORCED = "not the model's: proposed tokens were kept at the given acceptance_rate"


class SpeculativeProgram(JaxProgram):
    """Proposes with a draft model, with the first layers, or by n-grams, and keeps what the model accepts."""

    def __init__(
        self,
        point: Point,
        plan: Plan,
        mesh: Mesh,
        settings: Settings,
        source: Source,
        tolerance: float,
        quality: Callable[[], Quality | None],
    ) -> None:
        how = speculation_of(point, settings.ngram)
        assert how is not None
        self.how, self.draft = how, draft_plan(point, plan)
        self.draft_weights: Parameters | None = None
        self.draft_cache: Caches = ()
        self.count: Count | None = None
        if self.draft is not None:
            self.draft_weights = load_parameters(self.draft, mesh, settings.draft_source(self.draft.model))
            self.draft_cache = make_cache(self.draft, mesh)
        super().__init__(point, plan, mesh, settings, source, tolerance, quality)

    def _prepare_prefill(self, timed: bool) -> None:
        super()._prepare_prefill(timed)
        if self.draft is not None:
            read = make_prefill(self.draft, self.mesh, self.settings.sampling)
            self._compile("draft_prefill", read, (self.draft_weights, self.draft_cache, *self.inputs), timed)

    def _prefill(self) -> None:
        super()._prefill()
        if self.draft is not None:
            with out_of_memory(self.point):
                *_, self.draft_cache = self.calls["draft_prefill"](self.draft_weights, self.draft_cache, *self.inputs)
                jax.block_until_ready(self.draft_cache)

    def _prepare_decode(self) -> None:
        decode = make_speculative_decode(
            self.plan, self.draft, self.mesh, self.how, self.point.decode_steps, self.settings.sampling
        )
        self._compile("decode", decode, (*self._state(), self.first, *self.inputs), True)

    def _decode(self) -> None:
        with out_of_memory(self.point):
            tokens, scores, caches, self.count = self.calls["decode"](*self._state(), self.first, *self.inputs)
            self.cache, self.draft_cache = caches
            self.decoded = jax.block_until_ready((tokens, scores))
            jax.block_until_ready(caches)

    def _state(self) -> tuple[Both, Both]:
        if self.draft is None:
            return Both(self.weights), Both(self.cache)
        return Both(self.weights, self.draft_weights), Both(self.cache, self.draft_cache)

    def facts(self) -> Facts:
        """As of any program; and how many of the proposed tokens were kept, and how many tokens a turn yields."""
        found = super().facts()
        if self.count is None:
            return found
        turns, judged, kept = (gathered(each).astype(np.int64) for each in self.count)
        tokens = self.point.decode_steps * self.point.batch_size
        details: Mapping[str, Any] = {
            "turns": int(turns.max()),
            "turns_by_sequence": {"min": int(turns.min()), "mean": float(turns.mean()), "max": int(turns.max())},
            "judged_tokens": int(judged.sum()),
            "kept_tokens": int(kept.sum()),
            **({"outputs": FORCED} if self.how.forced is not None else {}),
        }
        measured = {} if self.how.forced is not None else {"acceptance_rate": float(kept.sum() / judged.sum())}
        return replace(
            found,
            resolved={**found.resolved, **measured},
            tokens_per_turn=float(tokens / turns.sum()),
            details={**found.details, **details},
        )

    def _all_weights(self) -> Any:
        return self.weights, self.draft_weights

    def _all_caches(self) -> Any:
        return self.cache, self.draft_cache

"""Several tokens a turn: something proposes them, and the model verifies them together."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from engines.core.engine import Facts
from engines.jax.arrays import gathered, replicated
from engines.jax.offload.stream import Stream
from engines.jax.programs import Programs
from engines.jax.prompt_batch import Prompts
from engines.jax.stop_token import complete_run, generated
from engines.jax.ways.steps import Decode, Steps
from engines.jax.work import Work
from engines.transformer.generate.ragged_prompts import shapes
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.programs import abstract_arguments, load_parameters, make_prefill
from engines.transformer.speculation.draft import draft_plan
from engines.transformer.speculation.options import speculation_of
from engines.transformer.speculation.programs import abstract_state, make_speculative_decode
from engines.transformer.speculation.propose import Both
from engines.transformer.speculation.turns import Count

FORCED = "not the model's: proposed tokens were kept at the given acceptance_rate"


class Speculation(Steps):
    """Proposes with a draft model, with the first layers, or by n-grams, and keeps what the model accepts."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        how = speculation_of(work.point, work.settings.ngram)
        assert how is not None
        self.how, self.draft = how, draft_plan(work.point, work.plan)

    def load(self) -> None:
        """The draft model and its cache, which stay on the devices."""
        if self.draft is not None:
            source = self.work.settings.draft_source(self.draft.model)
            self.weights = load_parameters(self.draft, self.work.mesh, source)
            self.cache = make_cache(self.draft, self.work.mesh)

    def whole(self) -> Any:
        """See :class:`engines.jax.ways.steps.Steps`; all turns are one program, which counts them."""
        work = self.work
        return make_speculative_decode(
            work.plan, self.draft, work.mesh, self.how, work.point.decode_steps, work.sampling
        )

    def layered(self, stream: Stream, programs: Programs, prompts: Prompts) -> Decode:
        """See :class:`engines.jax.ways.steps.Steps`."""
        from engines.jax.offload.turns import streamed_turns

        return streamed_turns(self.work, self.how, self.draft, stream, programs)

    def given(self, weights: Any, cache: Any) -> tuple[Both, Both]:
        """The model's and the draft's."""
        if self.draft is None:
            return Both(weights), Both(cache)
        return Both(weights, self.weights), Both(cache, self.cache)

    def layered_texts(self, prompts: Prompts) -> dict[str, str]:
        """See :class:`engines.jax.ways.steps.Steps`."""
        from engines.jax.offload.turns import turn_texts

        return turn_texts(self.work, self.how, self.draft)

    def described(self, weights: Any, cache: Any) -> tuple[Both, Both]:
        """See :class:`engines.jax.ways.steps.Steps`."""
        return abstract_state(Both(self.work.plan, self.draft), self.work.mesh)

    def kept(self, caches: Both) -> Any:
        """See :class:`engines.jax.ways.steps.Steps`."""
        self.cache = caches.draft
        return caches.model

    def start(self, prompts: Prompts) -> tuple[Any, ...]:
        """The prompt: where decoding begins is its length, and n-grams are looked up in it."""
        return tuple(replicated(self.work.mesh, each) for each in prompts.arguments)

    def start_shapes(self, prompts: Prompts, sharding: Any) -> tuple[Any, ...]:
        """See :class:`engines.jax.ways.steps.Steps`."""
        return tuple(shapes(each, sharding) for each in prompts.arguments)

    def prepare_prompt(self, programs: Programs, inputs: tuple[Any, ...], timed: bool) -> None:
        """The draft's pass over the prompt."""
        if self.draft is not None:
            read = make_prefill(self.draft, self.work.mesh, self.work.sampling)
            call = programs.add("draft_prefill", read, (self.weights, self.cache, *inputs), timed)
            programs.calls["draft_prefill"] = call

    def read(self, programs: Programs, inputs: tuple[Any, ...]) -> None:
        """See :meth:`prepare_prompt`."""
        if self.draft is not None:
            *_, self.cache = programs.calls["draft_prefill"](self.weights, self.cache, *inputs)
            jax.block_until_ready(self.cache)

    def prompt_texts(self) -> dict[str, str]:
        """See :class:`engines.jax.ways.steps.Steps`."""
        if self.draft is None:
            return {}
        arguments = abstract_arguments(self.draft, self.work.mesh, self.work.point.input_len)["prefill"]
        read = make_prefill(self.draft, self.work.mesh, self.work.sampling)
        return {"draft_prefill": read.lower(*arguments).as_text()}

    def check(self, first: NDArray[np.int32], tokens: NDArray[np.int32]) -> None:
        """See :class:`engines.jax.ways.steps.Steps`; the steps are those of the sequence that has most tokens."""
        stop_token = self.work.settings.stop_token
        if stop_token is not None:
            most = int(generated(first, tokens, stop_token).max())
            self.generated = complete_run(first, tokens, stop_token, most)

    def told(self, facts: Facts) -> Facts:
        """How many of the proposed tokens were kept, and how many tokens a turn yields."""
        if not self.counted:
            return facts
        turns, judged, kept = (gathered(each).astype(np.int64) for each in Count(*self.counted[0]))
        tokens = self.work.point.decode_steps * self.work.point.batch_size
        details: Mapping[str, Any] = {
            "turns": int(turns.max()),
            "turns_by_sequence": {"min": int(turns.min()), "mean": float(turns.mean()), "max": int(turns.max())},
            "judged_tokens": int(judged.sum()),
            "kept_tokens": int(kept.sum()),
            **({"outputs": FORCED} if self.how.forced is not None else {}),
        }
        measured = {} if self.how.forced is not None else {"acceptance_rate": float(kept.sum() / judged.sum())}
        return replace(
            facts,
            resolved={**facts.resolved, **measured},
            tokens_per_turn=float(tokens / turns.sum()),
            details={**facts.details, **details},
        )

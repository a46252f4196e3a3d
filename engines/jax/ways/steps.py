"""A token of every sequence a step; also what ways of deciding have in common."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from engines.core.engine import Facts
from engines.jax.arrays import gathered, replicated
from engines.jax.offload.stream import Stream
from engines.jax.programs import Programs
from engines.jax.prompt_batch import Prompts, decode_of
from engines.jax.stop_token import complete_run
from engines.jax.work import Work
from engines.transformer.generate.ragged_prompts import shapes

Decode = Callable[..., tuple[Any, ...]]
"""(parameters, caches, token [batch], *:meth:`Steps.start`) → (tokens [steps, batch], logits, caches, *counted)."""


class Steps:
    """Plain decoding. ``counted`` is what the last run returned besides: with a stop token, the steps that ran."""

    weights: Any = None
    cache: Any = ()
    """What this way holds on the devices besides the model's."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.counted: tuple[Any, ...] = ()
        self.generated: dict[str, int] = {}

    def load(self) -> None:
        """Make what this way holds besides the model."""

    def whole(self) -> Any:
        """The jitted :data:`Decode` that has all layers."""
        return decode_of(self.work.point, self.work.plan, self.work.mesh, self.work.settings)

    def layered(self, stream: Stream, programs: Programs, prompts: Prompts) -> Decode:
        """The :data:`Decode` whose layers come one by one."""
        from engines.jax.offload.decode import streamed_steps

        return streamed_steps(self.work, stream, programs, prompts)

    def given(self, weights: Any, cache: Any) -> tuple[Any, Any]:
        """Parameters and caches of a :data:`Decode`, of the model's."""
        return weights, cache

    def kept(self, caches: Any) -> Any:
        """The model's cache, of those that a :data:`Decode` returned."""
        return caches

    def layered_texts(self, prompts: Prompts) -> dict[str, str]:
        """The StableHLO of its programs."""
        from engines.jax.offload.decode import step_readings, texts_of

        return texts_of(self.work, step_readings(self.work, prompts))

    def described(self, weights: Any, cache: Any) -> tuple[Any, Any]:
        """:meth:`given` as shapes, before anything is made."""
        return weights, cache

    def start(self, prompts: Prompts) -> tuple[Any, ...]:
        """What a :data:`Decode` takes behind the token."""
        return (jax.tree.map(lambda each: replicated(self.work.mesh, each), prompts.position),)

    def start_shapes(self, prompts: Prompts, sharding: Any) -> tuple[Any, ...]:
        """:meth:`start` as shapes."""
        return (shapes(prompts.position, sharding),)

    def prepare_prompt(self, programs: Programs, inputs: tuple[Any, ...], timed: bool) -> None:
        """Compile what else reads the prompt."""

    def read(self, programs: Programs, inputs: tuple[Any, ...]) -> None:
        """Have it read the prompt."""

    def prompt_texts(self) -> dict[str, str]:
        """The StableHLO of what else reads the prompt."""
        return {}

    def check(self, first: NDArray[np.int32], tokens: NDArray[np.int32]) -> None:
        """Check that the last run generated all tokens.

        Raises:
            InvalidRequest: a stop token ended a sequence before the last step.
        """
        stop_token = self.work.settings.stop_token
        if stop_token is not None:
            self.generated = complete_run(first, tokens, stop_token, int(gathered(self.counted[-1])))

    def layers(self, rows: NDArray[np.int64], time: int) -> NDArray[np.int64] | None:
        """The layers that each of the ``time`` tokens of some sequences passed, [rows, time]; None: all of them."""
        del rows, time
        return None

    def told(self, facts: Facts) -> Facts:
        """The facts, with what this way knows of its last run."""
        return facts

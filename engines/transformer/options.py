"""How prompts are read and how tokens are chosen: options of the programs beside the plan. Imports no JAX."""

from dataclasses import dataclass
from typing import Final

from engines.core.errors import InvalidRequest
from engines.core.model import Model
from engines.core.point import Point

ATTENTIONS: Final = ("auto", "direct", "blockwise", "splash")
KERNEL_TOKENS: Final = 128
"""Splash attention takes prompts of a multiple of so many tokens."""
BLOCK: Final = 512
"""Of 128 to 1024, XLA's schedules for TPU v4 are shortest with 512 or more (PaLM 540B, 2048 tokens)."""
PROCESSOR_BLOCK: Final = 128
"""What the caches of processors like: their attention is then several times as fast as with all scores at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillOptions:
    """``attention``: how a prompt's scores are made; ``auto`` is by blocks where all at once are many.

    ``splash`` is a kernel for TPUs (``layers.splash_attention``). ``block`` is the largest number of queries, and
    of keys, of one block.

    ``chunk`` tokens go through the model at a time, each chunk attending to those before it; None is the whole prompt
    at once. The first ``prefix`` tokens are the same for every sequence: they are read, and kept, once.
    """

    attention: str = "auto"
    block: int = BLOCK
    chunk: int | None = None
    prefix: int = 0

    def check(self, input_len: int) -> None:
        """Check each choice, for prompts of ``input_len`` tokens.

        Raises:
            InvalidRequest: a name is unknown, a number is too small, or nothing of a prompt follows its prefix.
        """
        if self.attention not in ATTENTIONS:
            raise InvalidRequest(
                "engine.attention", self.attention, "is not known", f"use one of {', '.join(ATTENTIONS)}"
            )
        for key, value, least in (
            ("attention_block", self.block, 1),
            ("prefill_chunk", 1 if self.chunk is None else self.chunk, 1),
            ("shared_prefix", self.prefix, 0),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidRequest(
                    f"engine.{key}", value, f"is no whole number from {least}", f"give {least} or more"
                )
        if self.prefix and self.prefix >= input_len:
            raise InvalidRequest(
                "engine.shared_prefix",
                self.prefix,
                f"leaves no token of its own to a prompt of input_len={input_len}",
                "give less than input_len",
            )

    def check_kernel(self, point: Point, packed: bool) -> None:
        """Check that splash attention, where it is asked for, takes the point's prompts.

        Raises:
            InvalidRequest: the chips are no TPUs, or the prompts are none that it takes.
        """
        if self.attention != "splash":
            return
        if point.chip.kind != "tpu":
            raise InvalidRequest(
                "engine.attention", "splash", f"is a kernel for TPUs and hw={point.chip.name} is none", "use blockwise"
            )
        whole = self.chunk is None and not self.prefix and not packed and point.partitioner == "manual"
        formats = {point.act_dtype, point.kv_dtype}
        if not whole or point.input_len % KERNEL_TOKENS or formats != {"bfloat16"}:
            raise InvalidRequest(
                "engine.attention",
                "splash",
                f"takes whole prompts of a multiple of {KERNEL_TOKENS} tokens, act_dtype and kv_dtype bfloat16 and "
                "partitioner=manual",
                "ask for those or use blockwise",
            )

    def spared(self, batch_size: int) -> int:
        """Prompt tokens of a batch that are neither read nor kept again: all but one sequence's share of the prefix."""
        return (batch_size - 1) * self.prefix


WHOLE_PROMPT: Final = PrefillOptions()
"""Nothing asked for."""

COOLEST: Final = 1e-6
HOTTEST: Final = 1e6
"""Bounds of a temperature other than 0: between them no logit of float32 divides into what is no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen: temperature, then the ``top_k`` likeliest ids, then the fewest that hold ``top_p``.

    ``temperature`` 0 is greedy, ``top_k`` 0 and ``top_p`` 1 keep every id. A sequence that has produced
    ``stop_token`` goes on producing it.

    Raises:
        InvalidRequest: a value is out of its range, or could change nothing.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop_token: int | None = None

    def __post_init__(self) -> None:
        for key, whole in (("temperature", False), ("top_k", True), ("top_p", False), ("seed", True)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "whole number" if whole else "number"
                raise InvalidRequest(f"engine.{key}", value, f"is no {kind}", f"give a {kind}")
        if self.temperature != 0 and not COOLEST <= self.temperature <= HOTTEST:
            raise InvalidRequest(
                "engine.temperature",
                self.temperature,
                f"is neither 0 nor within {COOLEST:g} and {HOTTEST:g}",
                "use 0 for greedy, 1 for the model's own distribution",
            )
        if self.top_k < 0:
            raise InvalidRequest("engine.top_k", self.top_k, "is less than 0", "use 0 to keep every id")
        if not 0 < self.top_p <= 1:
            raise InvalidRequest("engine.top_p", self.top_p, "is no share above 0", "use 1 to keep every id")
        for key, off in (("top_k", 0), ("top_p", 1)):
            if self.greedy and getattr(self, key) != off:
                raise InvalidRequest(
                    f"engine.{key}",
                    getattr(self, key),
                    "changes nothing with engine.temperature=0, which is greedy",
                    "set engine.temperature=1",
                )
        stop = self.stop_token
        if stop is not None and (isinstance(stop, bool) or not isinstance(stop, int) or stop < 0):
            raise InvalidRequest("engine.stop_token", stop, "is no id", "give a whole number from 0, or null")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest id is taken."""
        return self.temperature == 0

    def check(self, model: Model) -> None:
        """Check the settings against the model that they are for.

        Raises:
            InvalidRequest: the stop token is no id of the model.
        """
        if self.stop_token is not None and self.stop_token >= model.vocab_size:
            raise InvalidRequest(
                "engine.stop_token",
                self.stop_token,
                f"is beyond the vocabulary of {model.name}",
                f"use an id below {model.vocab_size}",
            )


GREEDY: Final = Sampling()

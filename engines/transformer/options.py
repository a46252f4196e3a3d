"""How prompts are read and how tokens are chosen: options of the programs beside the plan. Imports no JAX."""

from dataclasses import dataclass
from typing import Final

from engines.core.errors import InvalidRequest
from engines.core.model import Model
from engines.core.point import Point

ATTENTIONS: Final = ("auto", "direct", "blockwise", "splash")
KERNEL_TOKENS: Final = 128
"""Splash attention takes prompts whose length is a multiple of this many tokens."""
BLOCK: Final = 512
"""Of 128 to 1024, XLA's schedules for TPU v4 are shortest with 512 or more (PaLM 540B, 2048 tokens)."""
CPU_BLOCK: Final = 128
"""A block that fits a CPU's cache: attention is then several times as fast as with all scores at once."""


def check_unroll_layers(value: object) -> None:
    """Raise InvalidRequest where the setting ``unroll_layers`` is not true or false."""
    if not isinstance(value, bool):
        raise InvalidRequest("engine.unroll_layers", value, "must be true or false", "use true or false")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillOptions:
    """``attention``: how a prompt's attention scores are computed; ``auto`` uses blocks where there are many scores.

    ``direct`` computes all scores at once, ``blockwise`` one block at a time, and ``splash`` is a TPU kernel
    (``layers.splash_attention``). ``block`` is the largest number of queries, and of keys, in one block.

    ``chunk`` is the number of tokens that go through the model at a time, each chunk attending to those before it; None
    is the whole prompt at once. The first ``prefix`` tokens are the same in every sequence: they are computed and
    cached once.
    """

    attention: str = "auto"
    block: int = BLOCK
    chunk: int | None = None
    prefix: int = 0

    def check(self, input_len: int) -> None:
        """Check each option, for prompts of ``input_len`` tokens.

        Raises:
            InvalidRequest: a name is unknown, a number is too small, or the prefix is not shorter than the prompt.
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
                raise InvalidRequest(f"engine.{key}", value, f"must be an integer ≥ {least}", f"use {least} or more")
        if self.prefix and self.prefix >= input_len:
            raise InvalidRequest(
                "engine.shared_prefix",
                self.prefix,
                f"must be shorter than input_len={input_len}",
                "use fewer tokens than input_len",
            )

    def check_kernel(self, point: Point, packed: bool) -> None:
        """Check that splash attention, where it is requested, supports the point.

        Raises:
            InvalidRequest: the chips are not TPUs, or the kernel does not support the prompts or their dtypes.
        """
        if self.attention != "splash":
            return
        if point.chip.kind != "tpu":
            raise InvalidRequest(
                "engine.attention", "splash", f"needs a TPU, and hw={point.chip.name} is not one", "use blockwise"
            )
        if point.model.attention.is_latent or point.attn_sharding == "sequence":
            raise InvalidRequest(
                "engine.attention",
                "splash",
                "is a kernel of neither latent attention nor attn_sharding=sequence",
                "use blockwise",
            )
        whole = self.chunk is None and not self.prefix and not packed and point.partitioner == "manual"
        formats = {point.act_dtype, point.kv_dtype}
        if not whole or point.input_len % KERNEL_TOKENS or formats != {"bfloat16"}:
            raise InvalidRequest(
                "engine.attention",
                "splash",
                f"needs whole prompts of a multiple of {KERNEL_TOKENS} tokens, act_dtype and kv_dtype bfloat16 and "
                "partitioner=manual",
                "change those or use blockwise",
            )
        if point.model.position == "alibi":
            raise InvalidRequest(
                "engine.attention",
                "splash",
                f"adds nothing to scores, and model={point.model.name} has position=alibi",
                "use blockwise",
            )

    def skipped_tokens(self, batch_size: int) -> int:
        """Prompt tokens of a batch that are not computed again: the prefix in all sequences but one."""
        return (batch_size - 1) * self.prefix


WHOLE_PROMPT: Final = PrefillOptions()
"""The default: the whole prompt at once, without a shared prefix."""

MIN_TEMPERATURE: Final = 1e-6
MAX_TEMPERATURE: Final = 1e6
"""Bounds of a temperature other than 0: within them, float32 logits divided by it stay finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen: temperature, then the ``top_k`` most likely ids, then ``top_p``.

    ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 keep every id. A sequence that has produced
    ``stop_token`` produces only that from then on.

    Raises:
        InvalidRequest: a value is out of its range, or has no effect.
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
                kind = "an integer" if whole else "a number"
                raise InvalidRequest(f"engine.{key}", value, f"must be {kind}", f"use {kind}")
        if self.temperature != 0 and not MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE:
            raise InvalidRequest(
                "engine.temperature",
                self.temperature,
                f"must be 0 or between {MIN_TEMPERATURE:g} and {MAX_TEMPERATURE:g}",
                "use 0 for greedy, 1 for the model's own distribution",
            )
        if self.top_k < 0:
            raise InvalidRequest("engine.top_k", self.top_k, "must be an integer ≥ 0", "use 0 to keep every id")
        if not 0 < self.top_p <= 1:
            raise InvalidRequest("engine.top_p", self.top_p, "must be > 0 and ≤ 1", "use 1 to keep every id")
        for key, off in (("top_k", 0), ("top_p", 1)):
            if self.greedy and getattr(self, key) != off:
                raise InvalidRequest(
                    f"engine.{key}",
                    getattr(self, key),
                    "has no effect with engine.temperature=0, which is greedy",
                    "set engine.temperature=1",
                )
        stop = self.stop_token
        if stop is not None and (isinstance(stop, bool) or not isinstance(stop, int) or stop < 0):
            raise InvalidRequest("engine.stop_token", stop, "must be an integer ≥ 0", "use a token id, or null")

    @property
    def greedy(self) -> bool:
        """Whether the most likely id is always taken."""
        return self.temperature == 0

    def check(self, model: Model) -> None:
        """Check the settings against a model.

        Raises:
            InvalidRequest: the stop token is not in the model's vocabulary.
        """
        if self.stop_token is not None and self.stop_token >= model.vocab_size:
            raise InvalidRequest(
                "engine.stop_token",
                self.stop_token,
                f"is not in the vocabulary of {model.name}",
                f"use an id below {model.vocab_size}",
            )


GREEDY: Final = Sampling()

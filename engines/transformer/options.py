"""How a prompt is read: choices that do not change its logits."""

from dataclasses import dataclass
from typing import Final

from engines.core.errors import InvalidRequest
from engines.core.point import Point

ATTENTIONS: Final = ("auto", "direct", "blockwise", "splash")
KERNEL_TOKENS: Final = 128
"""Splash attention takes prompts of a multiple of so many tokens."""
BLOCK: Final = 512
"""Of 128 to 1024, XLA's schedules for TPU v4 are shortest with 512 or more (PaLM 540B, 2048 tokens)."""
PROCESSOR_BLOCK: Final = 128
"""What the caches of processors like: their attention is then several times as fast as with all scores at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
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


WHOLE: Final = Reading()
"""Nothing asked for."""

"""How a prompt is read: choices that change neither its logits nor where anything is kept."""

from dataclasses import dataclass
from typing import Final

from engines.errors import AskedWrongly

ATTENTIONS: Final = ("auto", "direct", "blockwise")
BLOCK: Final = 512
"""Of 128 to 1024, XLA's schedules for TPU v4 are shortest with 512 or more (PaLM 540B, 2048 tokens)."""
PROCESSOR_BLOCK: Final = 256
"""What the caches of processors like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """``attention``: how a prompt's scores are made; ``auto`` is by blocks where all at once are many.

    ``block`` is the largest number of queries, and of keys, of one block.
    """

    attention: str = "auto"
    block: int = BLOCK

    def check(self) -> None:
        """Check each choice by itself.

        Raises:
            AskedWrongly: a name is unknown, or a number is too small.
        """
        if self.attention not in ATTENTIONS:
            raise AskedWrongly("attention", self.attention, "is not known", f"use one of {', '.join(ATTENTIONS)}")
        if self.block < 1:
            raise AskedWrongly("attention_block", self.block, "is too small", "give 1 or more")


WHOLE: Final = Reading()
"""Nothing asked for."""

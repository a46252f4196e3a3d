"""Sizes with padding: so that heads, key/value columns and the vocabulary split evenly over the chips."""

import itertools
import math
from dataclasses import dataclass

from engines.core.model import Model

BLOCK_COLUMNS = 16
"""Padding of k and of v where a matmul's columns are cut into blocks.

A chunk then stays at a multiple of the 32 rows that a TPU's memory has in a tile of int8: a matrix cut elsewhere is
copied whole before it is read.
"""


@dataclass(frozen=True, slots=True)
class Padded:
    """``model`` on ``chips`` chips, a *chunk* of columns each. ``cuts_columns``: matmuls are cut into blocks."""

    model: Model
    chips: int
    cuts_columns: bool

    @property
    def kv_heads(self) -> int:
        """Key/value heads: a multiple of the chips or a divisor of them, so that chunks align with heads.

        Multihead pads to a multiple, as its key/value heads travel with their query heads.
        """
        model = self.model
        if model.num_kv_heads == model.num_heads:
            return math.ceil(model.num_heads / self.chips) * self.chips
        return next(
            count for count in itertools.count(model.num_kv_heads) if count % self.chips == 0 or self.chips % count == 0
        )

    @property
    def group(self) -> int:
        """Query heads of one key/value head: so many that all heads split evenly over all chips."""
        real = self.model.num_heads // self.model.num_kv_heads
        return next(count for count in itertools.count(real) if count * self.kv_heads % self.chips == 0)

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.kv_heads * self.group

    @property
    def kv_splits_by_head(self) -> bool:
        """Whether a chip's chunk of k and v is whole heads, those that its query heads read."""
        return self.kv_heads % self.chips == 0

    @property
    def q_width(self) -> int:
        """Query columns of one chunk."""
        return self.heads // self.chips * self.model.head_dim

    @property
    def kv_width(self) -> int:
        """Columns of k (and of v) of one chunk; a head may spread over several chunks."""
        width = math.ceil(self.kv_heads * self.model.head_dim / self.chips)
        if self.cuts_columns and not self.kv_splits_by_head:
            return math.ceil(width / BLOCK_COLUMNS) * BLOCK_COLUMNS
        return width

    @property
    def ffn_width(self) -> int:
        """Feed-forward columns of one chunk."""
        return self.model.ffn.stored_columns // self.chips

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return math.ceil(self.model.vocab_size / self.chips) * self.chips

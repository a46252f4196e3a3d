"""Sizes with padding: so that heads, key/value columns and the vocabulary split evenly over the chips."""

import itertools
import math
from dataclasses import dataclass

from engines.core.model import Model

BLOCK_COLUMNS = 16
"""k and v are padded to a multiple of this where a matmul's columns are split into blocks.

A chunk then starts at a multiple of 32 rows, a TPU's int8 tile: a matrix that is split elsewhere is first copied whole.
"""


@dataclass(frozen=True, slots=True)
class Padded:
    """``model`` on ``chips`` chips with one *chunk* of columns each. ``cuts_columns``: matmuls are split in blocks.

    With ``copies_kv`` a key/value head is a column of every chunk whose query heads read it, not split over them.
    """

    model: Model
    chips: int
    cuts_columns: bool
    copies_kv: bool = False

    @property
    def kv_heads(self) -> int:
        """Key/value heads: a multiple of the chips or a divisor of them, so that chunks align with heads.

        A multihead model pads to a multiple, since each query head has its own key/value head.
        """
        model = self.model
        if model.num_kv_heads == model.num_heads:
            return math.ceil(model.num_heads / self.chips) * self.chips
        return next(
            count for count in itertools.count(model.num_kv_heads) if count % self.chips == 0 or self.chips % count == 0
        )

    @property
    def kv_copies(self) -> int:
        """Chunks that hold a copy of the same key/value head: 1 where heads are not copied."""
        return max(1, self.chips // self.kv_heads) if self.copies_kv else 1

    @property
    def group(self) -> int:
        """Query heads per key/value head, padded so that all heads split evenly over all chips."""
        real = self.model.num_heads // self.model.num_kv_heads
        return next(count for count in itertools.count(real) if count * self.kv_heads % self.chips == 0)

    @property
    def heads(self) -> int:
        """Query heads, padded."""
        return self.kv_heads * self.group

    @property
    def kv_splits_by_head(self) -> bool:
        """Whether a chip's chunk of k and v consists of whole heads, those that its query heads read."""
        return self.kv_copies * self.kv_heads % self.chips == 0

    @property
    def q_width(self) -> int:
        """Query columns in one chunk."""
        return self.heads // self.chips * self.model.head_dim

    @property
    def o_width(self) -> int:
        """Rows of the output matrix in one chunk: the columns of its heads' values."""
        return self.heads // self.chips * self.model.attention.value_dim

    @property
    def latent_widths(self) -> dict[str, int]:
        """Columns in one chunk of each projection down to latent vectors; q's own where it has no latent."""
        keys, attention = self.model, self.model.attention
        assert keys.kv_latent_dim is not None
        queries = {"q": self.q_width}
        if keys.q_latent_dim is not None:
            queries = {"q_a": math.ceil(keys.q_latent_dim / self.chips)}
        return queries | {"kv_a": math.ceil((keys.kv_latent_dim + attention.rotated_dim) / self.chips)}

    @property
    def kv_width(self) -> int:
        """Columns of k (and of v) in one chunk; a head may span several chunks."""
        width = math.ceil(self.kv_copies * self.kv_heads * self.model.head_dim / self.chips)
        if self.cuts_columns and not self.kv_splits_by_head:
            return math.ceil(width / BLOCK_COLUMNS) * BLOCK_COLUMNS
        return width

    @property
    def ffn_width(self) -> int:
        """Feed-forward columns in one chunk."""
        return self.model.ffn.stored_columns // self.chips

    @property
    def vocab(self) -> int:
        """Vocabulary size, padded to a multiple of the chips."""
        return math.ceil(self.model.vocab_size / self.chips) * self.chips


def real_heads(padded: Padded) -> list[int]:
    """The model's query head that each padded one is; one that is padding repeats a head of its group."""
    real = padded.model.num_heads // padded.model.num_kv_heads
    of_model = [(head // padded.group, min(head % padded.group, real - 1)) for head in range(padded.heads)]
    return [min(kv, padded.model.num_kv_heads - 1) * real + place for kv, place in of_model]

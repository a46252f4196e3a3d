"""Which part of the model a rank holds.

Megatron's partitioning (Shoeybi et al. 2019, section 3): each of T tensor ranks has H/T query heads, F/T columns of the
feed-forward and V/T rows of the vocabulary; each of P pipeline stages has consecutive layers. Rank r is tensor rank
r mod T of stage r // T.
"""

from dataclasses import dataclass

from engines.core.errors import Unsupported
from engines.core.model import Model


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of rank ``rank`` of ``tensor`` × ``pipeline``."""

    model: Model
    tensor: int
    pipeline: int
    rank: int

    @property
    def tensor_rank(self) -> int:
        """Index among the tensor-parallel ranks of this stage."""
        return self.rank % self.tensor

    @property
    def stage(self) -> int:
        """The pipeline stage: the first embeds tokens, the last computes logits."""
        return self.rank // self.tensor

    @property
    def is_first(self) -> bool:
        """Whether this is the first stage, which embeds tokens."""
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        """Whether this is the last stage, which computes logits."""
        return self.stage == self.pipeline - 1

    @property
    def layers(self) -> range:
        """The layers of this stage: consecutive, as evenly divided as possible."""
        count = self.model.num_layers
        return range(count * self.stage // self.pipeline, count * (self.stage + 1) // self.pipeline)

    @property
    def heads(self) -> slice:
        """The query heads."""
        return self._part(self.model.num_heads)

    @property
    def kv_heads(self) -> slice:
        """The key/value heads; where there are fewer than ranks, several ranks hold the same one."""
        if self.model.num_kv_heads % self.tensor == 0:
            return self._part(self.model.num_kv_heads)
        head = self.tensor_rank * self.model.num_kv_heads // self.tensor
        return slice(head, head + 1)

    @property
    def columns(self) -> slice:
        """The columns of the feed-forward's input matrices."""
        return self._part(self.model.d_ff)

    @property
    def vocab_size(self) -> int:
        """Vocabulary ids per tensor rank, padding included."""
        return -(-self.model.vocab_size // self.tensor)

    @property
    def vocab(self) -> slice:
        """The ids of this rank, without padding."""
        start = min(self.tensor_rank * self.vocab_size, self.model.vocab_size)
        return slice(start, min(start + self.vocab_size, self.model.vocab_size))

    def check(self) -> None:
        """Check that the model splits over the ranks.

        Raises:
            Unsupported: heads or columns do not split evenly, or there are more stages than layers.
        """
        model = self.model
        for key, size in (("num_heads", model.num_heads), ("d_ff", model.d_ff)):
            if size % self.tensor:
                raise Unsupported(f"tensor_parallel={self.tensor}: must divide {key}={size} of {model.name}")
        if model.num_kv_heads % self.tensor and self.tensor % model.num_kv_heads:
            raise Unsupported(
                f"tensor_parallel={self.tensor}: must be a divisor or a multiple of "
                f"num_kv_heads={model.num_kv_heads} of {model.name}"
            )
        if self.pipeline > model.num_layers:
            raise Unsupported(
                f"pipeline_parallel={self.pipeline}: must be ≤ num_layers={model.num_layers} of {model.name}"
            )

    def _part(self, size: int) -> slice:
        each = size // self.tensor
        return slice(self.tensor_rank * each, (self.tensor_rank + 1) * each)

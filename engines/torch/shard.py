"""Which part of the model a rank holds.

Megatron's partitioning (Shoeybi et al. 2019, section 3): each of T tensor ranks has H/T query heads, F/T columns of the
feed-forward and V/T rows of the vocabulary; each of P pipeline stages has consecutive layers. Rank r is tensor rank
r mod T of stage r // T.

With data-parallel attention the T ranks are D groups of A = T/D consecutive ones, each with its own sequences: heads
and vocabulary are split over the A ranks of a group. N experts are spread over X groups of T/X ranks, N/X whole experts
a group, whose ranks have F/(T/X) columns of each.
"""

from dataclasses import dataclass

from engines.core.errors import Unsupported
from engines.core.model import Model


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of rank ``rank`` of ``tensor`` × ``pipeline``; ``experts`` and ``data`` are X and D."""

    model: Model
    tensor: int
    pipeline: int
    rank: int
    experts: int = 1
    data: int = 1

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
    def attention(self) -> int:
        """Ranks that share the attention of a sequence, and the vocabulary."""
        return self.tensor // self.data

    @property
    def attention_rank(self) -> int:
        """Index among them."""
        return self.tensor_rank % self.attention

    @property
    def group(self) -> int:
        """Index of the group of sequences."""
        return self.tensor_rank // self.attention

    def sequences(self, batch_size: int) -> slice:
        """The sequences of this rank's group."""
        return _part(batch_size, self.data, self.group)

    @property
    def heads(self) -> slice:
        """The query heads."""
        return _part(self.model.num_heads, self.attention, self.attention_rank)

    @property
    def kv_heads(self) -> slice:
        """The key/value heads; where there are fewer than ranks, several ranks hold the same one."""
        if self.model.num_kv_heads % self.attention == 0:
            return _part(self.model.num_kv_heads, self.attention, self.attention_rank)
        head = self.attention_rank * self.model.num_kv_heads // self.attention
        return slice(head, head + 1)

    @property
    def columns(self) -> slice:
        """The columns of a dense feed-forward's input matrices."""
        return self.columns_of(self.model.d_ff)

    def columns_of(self, width: int) -> slice:
        """The columns of a feed-forward of ``width`` that all tensor ranks share."""
        return _part(width, self.tensor, self.tensor_rank)

    @property
    def own_experts(self) -> slice:
        """The experts."""
        return _part(self.model.num_experts or 0, self.experts, self.tensor_rank // self.ranks_an_expert)

    @property
    def ranks_an_expert(self) -> int:
        """Ranks that share an expert."""
        return self.tensor // self.experts

    @property
    def expert_columns(self) -> slice:
        """The columns of an expert's input matrices."""
        width = self.model.expert_d_ff or self.model.d_ff
        return _part(width, self.ranks_an_expert, self.tensor_rank % self.ranks_an_expert)

    @property
    def adds_expert_bias(self) -> bool:
        """Whether this rank adds the biases of its experts' outputs: one of those that share an expert."""
        return self.tensor_rank % self.ranks_an_expert == 0

    @property
    def sends_tokens(self) -> bool:
        """Whether tokens go to their experts by all-to-all: each rank has its own tokens and its own experts."""
        return self.data == self.experts == self.tensor > 1

    @property
    def vocab_size(self) -> int:
        """Vocabulary ids per rank, padding included."""
        return -(-self.model.vocab_size // self.attention)

    @property
    def vocab(self) -> slice:
        """The ids of this rank, without padding."""
        start = min(self.attention_rank * self.vocab_size, self.model.vocab_size)
        return slice(start, min(start + self.vocab_size, self.model.vocab_size))

    def check(self) -> None:
        """Check that the model splits over the ranks.

        Raises:
            Unsupported: heads, columns or experts do not split evenly, or there are more stages than layers.
        """
        model, split = self.model, f"tensor_parallel={self.tensor}"
        for key, degree in (("data_parallel", self.data), ("expert_parallel", self.experts)):
            if self.tensor % degree:
                raise Unsupported(f"{key}={degree}: must divide {split}, whose ranks it groups")
        if self.data > 1:
            split += f" with data_parallel={self.data}"
        if model.num_heads % self.attention:
            raise Unsupported(f"{split}: must divide num_heads={model.num_heads} of {model.name}")
        for key, size, ranks in self._widths():
            if size % ranks:
                raise Unsupported(f"{split}: must divide {key}={size} of {model.name}")
        kv_heads = model.num_kv_heads
        if not model.attention.is_latent and kv_heads % self.attention and self.attention % kv_heads:
            raise Unsupported(f"{split}: must be a divisor or a multiple of num_kv_heads={kv_heads} of {model.name}")
        if (model.num_experts or 0) % self.experts:
            raise Unsupported(
                f"expert_parallel={self.experts}: must divide num_experts={model.num_experts} of {model.name}"
            )
        if self.pipeline > model.num_layers:
            raise Unsupported(
                f"pipeline_parallel={self.pipeline}: must be ≤ num_layers={model.num_layers} of {model.name}"
            )

    def _widths(self) -> list[tuple[str, int, int]]:
        """(key, width, ranks that split it) of each kind of feed-forward that the model has."""
        model, found = self.model, []
        if not all(kind.has_experts for kind in model.layer_kinds):
            found.append(("d_ff", model.d_ff, self.tensor))
        if model.experts is not None:
            found.append(("expert_d_ff", model.experts.expert.d_ff, self.ranks_an_expert))
            if model.experts.shared is not None:
                found.append(("shared_expert_d_ff", model.experts.shared.d_ff, self.tensor))
        return found


def _part(size: int, parts: int, number: int) -> slice:
    each = size // parts
    return slice(number * each, (number + 1) * each)

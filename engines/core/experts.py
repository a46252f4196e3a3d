"""A mixture of experts: feed-forwards of which a router chooses a few for each token."""

from dataclasses import dataclass, field
from typing import Literal

from engines.core.extension import EXTENSION
from engines.core.feed_forward import FeedForward
from engines.core.layer_tensor import LayerTensor

RouterScore = Literal["softmax", "topk_softmax", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class ExpertKeys:
    """Keys of a model about its experts; without ``num_experts`` every layer is dense.

    A token goes to the ``experts_per_token`` experts with the highest router scores, each a feed-forward of
    ``expert_d_ff``; one more of ``shared_expert_d_ff`` reads every token, through a gate of its own where
    ``shared_expert_gate``. The first ``dense_layers`` layers have one feed-forward of ``d_ff`` instead.

    Weights are the softmax over all experts (``softmax``), over the chosen ones (``topk_softmax``), or sigmoids;
    ``router_normalized`` divides them by their sum, ``router_scale`` multiplies them. ``router_bias`` is added to the
    router's logits, ``router_correction`` to scores for the choice alone (DeepSeek-V3, arXiv 2412.19437). Of
    ``router_groups`` groups of experts, those ``router_groups_kept`` with the largest sum of their
    ``router_group_best`` highest scores take part: 2 in DeepSeek-V3, 1 in DeepSeek-V2.
    """

    num_experts: int | None = field(default=None, metadata={EXTENSION: True})
    experts_per_token: int | None = field(default=None, metadata={EXTENSION: True})
    expert_d_ff: int | None = field(default=None, metadata={EXTENSION: True})
    shared_expert_d_ff: int | None = field(default=None, metadata={EXTENSION: True})
    shared_expert_gate: bool = field(default=False, metadata={EXTENSION: True})
    dense_layers: int | None = field(default=None, metadata={EXTENSION: True})
    router_score: RouterScore = field(default="softmax", metadata={EXTENSION: True})
    router_normalized: bool = field(default=False, metadata={EXTENSION: True})
    router_scale: float = field(default=1.0, metadata={EXTENSION: True})
    router_bias: bool = field(default=False, metadata={EXTENSION: True})
    router_correction: bool = field(default=False, metadata={EXTENSION: True})
    router_groups: int = field(default=1, metadata={EXTENSION: True})
    router_groups_kept: int = field(default=1, metadata={EXTENSION: True})
    router_group_best: int = field(default=2, metadata={EXTENSION: True})


@dataclass(frozen=True, slots=True)
class Experts:
    """N = ``count`` feed-forwards like ``expert``, ``per_token`` of them for each token, and one for all."""

    count: int
    per_token: int
    expert: FeedForward
    shared: FeedForward | None
    keys: ExpertKeys

    @property
    def tensors(self) -> tuple[LayerTensor, ...]:
        """Every tensor of one layer: the router's [E, N], the experts' [N, E, F], the shared one's [E, F]."""
        e, n = self.expert.d_model, self.count
        found = [LayerTensor("router", (e, n), e)]
        found += [
            LayerTensor(f"experts.{each.name}", (n, *each.shape), each.fan_in, each.joins_residual)
            for each in self.expert.tensors
        ]
        if self.shared is not None:
            found += [
                LayerTensor(f"shared.{each.name}", each.shape, each.fan_in, each.joins_residual)
                for each in self.shared.tensors
            ]
        if self.keys.shared_expert_gate:
            found.append(LayerTensor("shared_gate", (e, 1), e))
        vectors = (("router_bias", self.keys.router_bias), ("router_correction", self.keys.router_correction))
        return (*found, *(LayerTensor(name, (n,), 0) for name, there in vectors if there))

    @property
    def matmul_params(self) -> int:
        """Elements of its matrices, the router's among them."""
        return sum(each.size for each in self.tensors if each.fan_in)

    @property
    def active_params(self) -> int:
        """Elements of its matrices with which one token is multiplied."""
        return self.matmul_params - (self.count - self.per_token) * self.expert.matmul_params

    @property
    def params(self) -> int:
        """Elements of all its tensors."""
        return sum(each.size for each in self.tensors)

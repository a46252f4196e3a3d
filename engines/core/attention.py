"""A kind of attention: which tensors it has, and what can be counted from them."""

from dataclasses import dataclass, field
from typing import Literal

from engines.core.extension import EXTENSION
from engines.core.layer_tensor import LayerTensor

WindowKind = Literal["sliding", "chunked"]


@dataclass(frozen=True, kw_only=True)
class AttentionKeys:
    """Keys of a model about what its layers attend to, beyond heads and their size.

    ``attention_window`` keys are seen by a query, itself included: the last ones (``sliding``), or those of its own
    block of so many (``chunked``). Every ``global_every``-th layer sees all; null is none of them. ``qk_norm`` norms
    every query and key head by one scale each. ``attn_scale`` multiplies scores, by default head_dim^(−1/2);
    ``attn_softcap`` c makes a score s c·tanh(s/c). ``attention_sinks`` add a learned score a head to the softmax, which
    takes weight and gives no value.

    With ``kv_latent_dim`` keys and values are made from one latent vector a token, which is what the cache holds
    (multi-head latent attention, DeepSeek-V2, arXiv 2405.04434), besides ``rotary_dim`` dimensions of a key that all
    heads share. ``head_dim`` counts both parts of a query, of which the last ``rotary_dim`` dimensions turn, as the
    shared key does; ``value_head_dim`` are those of a value. Queries come through ``q_latent_dim`` dimensions where it
    is given.
    """

    attn_bias: bool = False
    attn_output_bias: bool = field(default=True, metadata={EXTENSION: True})
    qk_norm: bool = field(default=False, metadata={EXTENSION: True})
    attention_window: int | None = field(default=None, metadata={EXTENSION: True})
    window_kind: WindowKind = field(default="sliding", metadata={EXTENSION: True})
    global_every: int | None = field(default=None, metadata={EXTENSION: True})
    attention_sinks: bool = field(default=False, metadata={EXTENSION: True})
    attn_scale: float | None = field(default=None, metadata={EXTENSION: True})
    attn_softcap: float | None = field(default=None, metadata={EXTENSION: True})
    q_latent_dim: int | None = field(default=None, metadata={EXTENSION: True})
    kv_latent_dim: int | None = field(default=None, metadata={EXTENSION: True})
    value_head_dim: int | None = field(default=None, metadata={EXTENSION: True})


@dataclass(frozen=True, slots=True)
class Attention:
    """E = ``d_model``, H = ``num_heads``, K = ``num_kv_heads``, D = ``head_dim``; ``keys`` says what else there is."""

    d_model: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotated_dim: int
    keys: AttentionKeys

    @property
    def is_latent(self) -> bool:
        """Whether keys and values come from a latent vector."""
        return self.keys.kv_latent_dim is not None

    @property
    def value_dim(self) -> int:
        """Elements of a value head: D, but for latent attention."""
        return self.keys.value_head_dim or self.head_dim

    @property
    def tensors(self) -> tuple[LayerTensor, ...]:
        """Every tensor of one layer's attention, matrices first."""
        matrices = self._latent() if self.is_latent else self._by_head()
        return (*matrices, *self._vectors())

    @property
    def matmul_params(self) -> int:
        """Elements of its matrices: 2·E·D·(H + K) of heads."""
        return sum(each.size for each in self.tensors if each.fan_in)

    @property
    def params(self) -> int:
        """Elements of all its tensors."""
        return sum(each.size for each in self.tensors)

    @property
    def cached_elements(self) -> int:
        """Elements that one layer caches for a token: 2·K·D of heads, or the latent vector and the shared key."""
        if self.keys.kv_latent_dim is not None:
            return self.keys.kv_latent_dim + self.rotated_dim
        return 2 * self.num_kv_heads * self.head_dim

    def flops(self, pairs: int) -> int:
        """FLOPs of q·kᵀ and of weights·v for so many pairs of a query and a key, every head's: 2·H·(D + value) each."""
        return 2 * self.num_heads * (self.head_dim + self.value_dim) * pairs

    def _by_head(self) -> list[LayerTensor]:
        e, h, k, d = self.d_model, self.num_heads, self.num_kv_heads, self.head_dim
        inward = [LayerTensor(name, (e, heads, d), e) for name, heads in (("q", h), ("k", k), ("v", k))]
        return [*inward, LayerTensor("o", (h, d, e), h * d, joins_residual=True)]

    def _latent(self) -> list[LayerTensor]:
        e, h, queries, latent = self.d_model, self.num_heads, self.keys.q_latent_dim, self.keys.kv_latent_dim
        assert latent is not None
        found = [LayerTensor("q", (e, h, self.head_dim), e)]
        if queries is not None:
            found = [LayerTensor("q_a", (e, queries), e), LayerTensor("q_b", (queries, h, self.head_dim), queries)]
        return [
            *found,
            LayerTensor("kv_a", (e, latent + self.rotated_dim), e),
            LayerTensor("k_b", (latent, h, self.head_dim - self.rotated_dim), latent),
            LayerTensor("v_b", (latent, h, self.value_dim), latent),
            LayerTensor("o", (h, self.value_dim, e), h * self.value_dim, joins_residual=True),
        ]

    def _vectors(self) -> list[LayerTensor]:
        keys, h, k, d = self.keys, self.num_heads, self.num_kv_heads, self.head_dim
        found = []
        if keys.q_latent_dim is not None:
            found.append(LayerTensor("q_a_norm.scale", (keys.q_latent_dim,), 0, is_scale=True))
        if keys.kv_latent_dim is not None:
            found.append(LayerTensor("kv_a_norm.scale", (keys.kv_latent_dim,), 0, is_scale=True))
        if keys.attn_bias:
            found += [LayerTensor(f"{name}_bias", (heads, d), 0) for name, heads in (("q", h), ("k", k), ("v", k))]
            if keys.attn_output_bias:
                found.append(LayerTensor("o_bias", (self.d_model,), 0, joins_residual=True))
        if keys.qk_norm:
            found += [LayerTensor(f"{name}.scale", (d,), 0, is_scale=True) for name in ("q_norm", "k_norm")]
        if keys.attention_sinks:
            found.append(LayerTensor("sinks", (h,), 0))
        return found

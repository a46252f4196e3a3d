"""Random weights by seed: the same tensors for every engine, framework and partitioning.

A value depends on (seed, tensor name, flat index) alone, by a counter-based hash, so that any slice of any tensor can
be made without the rest of it. Values are uniform, with a standard deviation that keeps activations near 1 through any
depth; norm scales are near 1 but not 1, and biases are not 0, so that a mistake with either shows.

Tensors, unfused (E, F, H, K, D as in ``engines.core.model``; V vocabulary, P learned positions; N a layer's number):

==============================================  ===============================================================
``embedding``                                   [V, E]
``positions``                                   [P, E], where positions are learned
``layers.N.attn_norm.scale`` ``.bias``          [E]; the bias where ``norm_bias``
``layers.N.ffn_norm.scale`` ``.bias``           [E]; not where both halves read attn_norm
``layers.N.attn_post_norm`` ``ffn_post_norm``   [E] each, ``.scale`` and ``.bias``, where norms stand after each half
``layers.N.q``  ``k``  ``v``  ``o``             [E, H, D]  [E, K, D]  [E, K, D]  [H, D, E]
``layers.N.q_bias`` ``k_bias`` ``v_bias``       [H, D]  [K, D]  [K, D], where ``attn_bias``
``layers.N.o_bias``                             [E], where ``has_output_bias``
``layers.N.q_norm.scale`` ``k_norm.scale``      [D], where ``qk_norm``
``layers.N.sinks``                              [H], where ``attention_sinks``
``layers.N.q_a`` ``q_a_norm.scale`` ``q_b``     [E, L] [L] [L, H, D]: instead of q, with L = ``q_latent_dim``
``layers.N.kv_a`` ``kv_a_norm.scale``           [E, L + rotary_dim] [L], with L = ``kv_latent_dim``; the last columns
                                                are the key that all heads share
``layers.N.k_b`` ``v_b``                        [L, H, D − rotary_dim] [L, H, value_head_dim]
``layers.N.gate`` ``up``, or ``wi``             [E, F]: both of a gated feed-forward, act(gate)·up; or the one input
``layers.N.wo``                                 [F, E]
``layers.N.gate_bias`` ``up_bias`` | ``wi_bias``  [F], where ``ffn_bias``
``layers.N.wo_bias``                            [E], where ``ffn_bias``
``layers.N.router`` ``router_bias``             [E, N] [N], of N experts
``layers.N.router_correction``                  [N]
``layers.N.experts.gate`` and so on             [N, E, F], [N, F, E], [N, F], [N, E]: the experts' tensors as above
``layers.N.shared.gate`` and so on              [E, F], …: the shared expert's
``layers.N.shared_gate``                        [E, 1]
``embedding_norm.scale`` ``.bias``              [E], where ``embedding_norm``
``final_norm.scale`` ``.bias``                  [E]
``lm_head``                                     [E, V], where the embedding is not tied
``lm_head_bias``                                [V], where ``lm_head_bias``
==============================================  ===============================================================

Query head h reads key/value head h // (H / K).
"""

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.core.layer_kind import LayerKind
from engines.core.model import Model

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A canonical tensor; random values are uniform with mean ``mean`` and standard deviation ``std``."""

    name: str
    shape: tuple[int, ...]
    std: float
    mean: float = 0.0

    def reshaped(self, *shape: int) -> "Tensor":
        """The same values in another shape: a value belongs to its flat index, so only the slicing changes."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{self.name}: {self.shape} has another number of values than {shape}")
        return Tensor(self.name, shape, self.std, self.mean)


class StoredWeights(Protocol):
    """Weights that are stored, such as those of a checkpoint."""

    def read(self, tensor: Tensor, index: Sequence[slice]) -> Floats:
        """``tensor[index]`` as float32; the tensor may be :meth:`Tensor.reshaped`. Slices have step 1."""
        ...


BLOCK_VALUES: Final = 1 << 18
"""Values that a thread generates at once: their 64-bit indices fit in a core's cache."""

Source = int | StoredWeights
"""The source of tensor values: a seed, or stored weights."""


def tensors(model: Model) -> dict[str, Tensor]:
    """Every tensor of the model by name, embedding first, then layer by layer."""
    listed = [*_outer_first(model)]
    for number, kind in enumerate(model.layer_kinds):
        prefix = f"layers.{number}."
        listed += [Tensor(prefix + each.name, each.shape, each.std, each.mean) for each in _layer(model, kind)]
    listed += _outer_last(model)
    return {each.name: each for each in listed}


def values(tensor: Tensor, source: Source, index: Sequence[slice] | None = None) -> Floats:
    """``tensor[index]`` as float32; the whole tensor without ``index``. Slices have step 1."""
    slices = [slice(None)] * len(tensor.shape) if index is None else list(index)
    if not isinstance(source, int):
        return source.read(tensor, slices)
    bounds = [part.indices(size)[:2] for part, size in zip(slices, tensor.shape, strict=True)]
    made: Floats = np.empty([max(0, stop - start) for start, stop in bounds], np.float32)
    (first, last), rows = bounds[0], max(1, BLOCK_VALUES // max(1, math.prod(made.shape[1:])))

    def fill(start: int) -> None:
        part = slice(start, min(start + rows, last))
        uniform = hashed_uniform(tensor.name, tensor.shape, source, [part, *slices[1:]])
        uniform -= np.float32(0.5)
        uniform *= np.float32(tensor.std * math.sqrt(12.0))
        if tensor.mean:
            uniform += np.float32(tensor.mean)
        made[start - first : part.stop - first] = uniform

    starts = range(first, last, rows)
    if len(starts) > 1:
        with ThreadPoolExecutor() as threads:  # numpy releases the GIL
            list(threads.map(fill, starts))
    elif starts and made.size:
        fill(first)
    return made


def prompt(model: Model, batch_size: int, length: int, seed: int, shared: int = 0) -> NDArray[np.int32]:
    """Token ids [batch_size, length]. Sequence b does not depend on ``batch_size`` nor position t on ``length``.

    The first ``shared`` tokens of every sequence are those of sequence 0.
    """
    # Rows of a fixed, wide table, so that a longer prompt begins with the shorter one.
    uniform = hashed_uniform("prompt", (batch_size, 1 << 24), seed, [slice(0, batch_size), slice(0, length)])
    ids = (uniform.astype(np.float64) * model.vocab_size).astype(np.int32)
    clipped: NDArray[np.int32] = np.minimum(ids, model.vocab_size - 1)
    clipped[:, :shared] = clipped[:1, :shared]
    return clipped


def hashed_uniform(name: str, shape: tuple[int, ...], seed: int, index: Sequence[slice]) -> Floats:
    """Uniform in [0, 1) with 24 bits for the flat indices that ``index`` selects of ``shape``.

    Two rounds of the 32-bit finalizer of MurmurHash3 (Appleby), keyed before each; the upper half of a flat index
    enters between them, so that tensors beyond 2³² values do not repeat.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    first, second = (np.uint32(int.from_bytes(digest[at : at + 4], "little")) for at in (0, 4))
    flat: Any = np.zeros((1,) * len(shape), np.uint64)
    stride = 1
    for axis in reversed(range(len(shape))):
        start, stop, _ = index[axis].indices(shape[axis])
        along = np.arange(start, max(start, stop), dtype=np.uint64) * np.uint64(stride)
        flat = flat + along.reshape([-1 if each == axis else 1 for each in range(len(shape))])
        stride *= shape[axis]
    low = flat.astype(np.uint32)
    low ^= first
    _mix(low)
    if stride > 1 << 32:
        low += (flat >> np.uint64(32)).astype(np.uint32) * np.uint32(0x9E3779B1)
    low ^= second
    _mix(low)
    low >>= np.uint32(8)
    uniform: Floats = low.astype(np.float32)
    uniform *= np.float32(2.0**-24)
    return uniform


def _mix(bits: NDArray[np.uint32]) -> None:
    bits ^= bits >> np.uint32(16)
    bits *= np.uint32(0x85EBCA6B)
    bits ^= bits >> np.uint32(13)
    bits *= np.uint32(0xC2B2AE35)
    bits ^= bits >> np.uint32(16)


def _outer_first(model: Model) -> list[Tensor]:
    # A tied table is also the output matrix: with std 1/√E logits have a standard deviation near 1.
    std = model.d_model**-0.5 if model.tied_embedding else 1.0
    if model.encoder:
        return []
    listed = [Tensor("embedding", (model.vocab_size, model.d_model), std)]
    if model.position == "learned":
        listed.append(Tensor("positions", (model.max_positions, model.d_model), std))
    if model.embedding_norm:
        listed += _norm(model, "embedding_norm")
    return listed


def _outer_last(model: Model) -> list[Tensor]:
    if model.encoder:
        return []
    listed = _norm(model, "final_norm")
    if not model.tied_embedding:
        listed.append(Tensor("lm_head", (model.d_model, model.vocab_size), model.d_model**-0.5))
    if model.lm_head_bias:
        listed.append(Tensor("lm_head_bias", (model.vocab_size,), 0.1))
    return listed


def _layer(model: Model, kind: LayerKind) -> list[Tensor]:
    # Each half of each layer adds variance 1/(2·layers), so that the residual stream ends near variance 1.
    share = (2 * model.num_layers) ** -0.5
    listed = [norm for name in norm_names(model) for norm in _norm(model, name)]
    for each in (*model.attention.tensors, *model.feed_forward(kind).tensors):
        std = each.fan_in**-0.5 if each.fan_in else 0.1
        std = share * std if each.joins_residual else std
        listed.append(Tensor(each.name, each.shape, std, 1.0 if each.is_scale else 0.0))
    return listed


def norm_names(model: Model) -> list[str]:
    """Names of a layer's norms over E, without those of latents and heads."""
    halves = ["attn"] if model.shares_norm else ["attn", "ffn"]
    before = [f"{half}_norm" for half in halves] if model.norm_position != "after" else []
    after = [f"{half}_post_norm" for half in halves] if model.norm_position != "before" else []
    return before + after


def _norm(model: Model, name: str) -> list[Tensor]:
    scale = Tensor(f"{name}.scale", (model.d_model,), 0.1, 1.0)
    return [scale, Tensor(f"{name}.bias", (model.d_model,), 0.1)] if model.norm_bias else [scale]

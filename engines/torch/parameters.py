"""A rank's parameters: its slices of the canonical tensors, as ``torch.nn.functional.linear`` takes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.core.feed_forward import FeedForward
from engines.core.layer_kind import LayerKind
from engines.torch.load_tensor import load_tensor
from engines.torch.shard import Shard
from engines.weights.random import Source, tensors
from engines.weights.random import Tensor as Spec

DTYPES: Final[dict[str, torch.dtype]] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}
ALL: Final = slice(None)
WHOLE: Final = ("attn_norm", "ffn_norm", "attn_post_norm", "ffn_post_norm", "q_norm", "k_norm", "q_a_norm", "kv_a_norm")
"""Norms of a layer, of which every rank holds all."""


@dataclass(slots=True)
class Matrix:
    """[..., out, in] in ``weight_dtype``. int8 is symmetric, with a ``scale`` per output channel of this rank's part.

    Of experts it is [experts, out, in].
    """

    weight: Tensor
    scale: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """x: [..., in] → [..., out] in x's dtype."""
        out = F.linear(x, self.weight.to(x.dtype))
        return out if self.scale is None else out * self.scale

    def rows(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Embedding lookup: ids [...] → [..., in] in ``dtype``."""
        out = F.embedding(ids, self.weight).to(dtype)
        return out if self.scale is None else out * self.scale[ids][..., None]

    def whole(self, dtype: torch.dtype) -> Tensor:
        """The matrix itself in ``dtype``."""
        full = self.weight.to(dtype)
        return full if self.scale is None else full * self.scale[..., None].to(dtype)


@dataclass(slots=True)
class LayerParameters:
    """Parameters of one layer.

    ``matrices`` by name: ``qkv`` or those of latent attention, ``o``; ``inputs`` (gate and up, or GELU's one input) and
    ``wo`` of the feed-forward, of the experts, ``experts.inputs`` …, and of the shared one, ``shared.inputs`` ….
    ``vectors``: norms, biases, sinks, and the router, [experts, in] in float32.
    """

    kind: LayerKind
    matrices: dict[str, Matrix]
    vectors: dict[str, Tensor]


@dataclass(slots=True)
class Parameters:
    """Parameters of a rank; those that its pipeline stage does not need are None."""

    layers: list[LayerParameters]
    embedding: Matrix | None = None
    head: Matrix | None = None
    vectors: dict[str, Tensor] = field(default_factory=dict)

    def all(self) -> list[Tensor]:
        """Every tensor once."""
        matrices = [self.embedding, self.head]
        vectors = list(self.vectors.values())
        for layer in self.layers:
            matrices += layer.matrices.values()
            vectors += layer.vectors.values()
        for matrix in matrices:
            if matrix is not None:
                vectors += [matrix.weight] if matrix.scale is None else [matrix.weight, matrix.scale]
        return list({id(each): each for each in vectors}.values())


class ParameterLoader:
    """Loads a rank's parameters on ``device``: matrices in ``weight_dtype``, vectors in ``act_dtype``."""

    def __init__(self, shard: Shard, source: Source, device: torch.device, weight_dtype: str, act_dtype: str) -> None:
        self.shard, self.source, self.device = shard, source, device
        self.weight_dtype, self.act_dtype = DTYPES[weight_dtype], DTYPES[act_dtype]
        self.specs = tensors(shard.model)

    def load(self, layers: bool = True) -> Parameters:
        """All of this rank's parameters, or those that are of no layer."""
        shard, model = self.shard, self.shard.model
        made = Parameters([self.layer(number) for number in shard.layers] if layers else [])
        tied = model.tied_embedding
        if shard.is_first or (shard.is_last and tied):
            made.embedding = self._vocab_rows("embedding")
        if shard.is_first:
            made.vectors |= self._vectors("", [*(name for name in self.specs if name.startswith("embedding_norm."))])
            if model.position == "learned":
                made.vectors["positions"] = self._vector("positions")
        if shard.is_last:
            made.head = made.embedding if tied else self._vocab_rows("lm_head")
            made.vectors |= self._vectors("", [name for name in self.specs if name.startswith("final_norm.")])
            if model.lm_head_bias:
                made.vectors["lm_head_bias"] = self._padded(self._load("lm_head_bias", shard.vocab)).to(self.act_dtype)
        return made

    def layer(self, number: int) -> LayerParameters:
        """Those of one layer."""
        model, prefix = self.shard.model, f"layers.{number}."
        kind = model.layer_kinds[number]
        names = [f"{norm}.{part}" for norm in WHOLE for part in ("scale", "bias")]
        made = LayerParameters(kind, {}, self._vectors(prefix, [*names, "o_bias"]))
        (self._latent if model.attention.is_latent else self._by_head)(prefix, made)
        if model.attention_sinks:
            made.vectors["sinks"] = self._load(f"{prefix}sinks", self.shard.heads).to(self.act_dtype)
        if kind.has_experts:
            self._experts(prefix, made)
        else:
            self._feed_forward(prefix, "", model.ffn, made)
        return made

    def _by_head(self, prefix: str, made: LayerParameters) -> None:
        heads, kv = self.shard.heads, self.shard.kv_heads
        attention = (("q", heads), ("k", kv), ("v", kv))
        inward = [self._load(f"{prefix}{name}", ALL, part, ALL) for name, part in attention]
        if self.shard.model.attn_bias:
            biases = [self._load(f"{prefix}{name}_bias", part, ALL) for name, part in attention]
            made.vectors["qkv_bias"] = torch.cat([each.flatten() for each in biases]).to(self.act_dtype)
        made.matrices["qkv"] = self._matrix(torch.cat([each.flatten(1) for each in inward], dim=1).T)
        made.matrices["o"] = self._matrix(self._load(f"{prefix}o", heads, ALL, ALL).flatten(0, 1).T)

    def _latent(self, prefix: str, made: LayerParameters) -> None:
        """Latent projections whole, those from and to heads for this rank's heads."""
        heads = self.shard.heads
        for name in ("q_a", "kv_a"):
            if f"{prefix}{name}" in self.specs:
                made.matrices[name] = self._matrix(self._load(f"{prefix}{name}", ALL, ALL).T)
        for name in ("q", "q_b", "k_b", "v_b"):
            if f"{prefix}{name}" in self.specs:
                made.matrices[name] = self._matrix(self._load(f"{prefix}{name}", ALL, heads, ALL).flatten(1).T)
        made.matrices["o"] = self._matrix(self._load(f"{prefix}o", heads, ALL, ALL).flatten(0, 1).T)

    def _feed_forward(self, prefix: str, part: str, ffn: FeedForward, made: LayerParameters) -> None:
        """A feed-forward that all tensor ranks share; ``part`` begins its tensors' names."""
        columns = self.shard.columns_of(ffn.d_ff)
        inputs = [self._load(f"{prefix}{part}{name}", ALL, columns) for name in ffn.inputs]
        if ffn.has_bias:
            if not part or self.shard.tensor_rank == 0:  # the shared expert's is added before ranks are summed
                made.vectors |= self._vectors(prefix, [f"{part}wo_bias"])
            biases = [self._load(f"{prefix}{part}{name}_bias", columns) for name in ffn.inputs]
            made.vectors[f"{part}inputs_bias"] = torch.cat(biases).to(self.act_dtype)
        made.matrices[f"{part}inputs"] = self._matrix(torch.cat(inputs, dim=1).T)
        made.matrices[f"{part}wo"] = self._matrix(self._load(f"{prefix}{part}wo", columns, ALL).T)

    def _experts(self, prefix: str, made: LayerParameters) -> None:
        layer, shard = self.shard.model.experts, self.shard
        assert layer is not None
        own, columns = shard.own_experts, shard.expert_columns
        for name in ("router", "shared_gate"):
            if f"{prefix}{name}" in self.specs:
                made.vectors[name] = self._load(f"{prefix}{name}", ALL, ALL).T.contiguous()
        for name in ("router_bias", "router_correction"):
            if f"{prefix}{name}" in self.specs:
                made.vectors[name] = self._load(f"{prefix}{name}", ALL)
        inputs = [self._load(f"{prefix}experts.{name}", own, ALL, columns) for name in layer.expert.inputs]
        made.matrices["experts.inputs"] = self._matrix(torch.cat(inputs, dim=2).mT)
        made.matrices["experts.wo"] = self._matrix(self._load(f"{prefix}experts.wo", own, columns, ALL).mT)
        if layer.expert.has_bias:
            biases = [self._load(f"{prefix}experts.{name}_bias", own, columns) for name in layer.expert.inputs]
            made.vectors["experts.inputs_bias"] = torch.cat(biases, dim=1).to(self.act_dtype)
            if shard.adds_expert_bias:
                made.vectors["experts.wo_bias"] = self._load(f"{prefix}experts.wo_bias", own, ALL).to(self.act_dtype)
        if layer.shared is not None:
            self._feed_forward(prefix, "shared.", layer.shared, made)

    def _vocab_rows(self, name: str) -> Matrix:
        """This rank's rows of [V, E], or columns of [E, V], as [ids, E], padded."""
        ids = self.shard.vocab
        table = self._load(name, ids, ALL) if name == "embedding" else self._load(name, ALL, ids).T
        return self._matrix(self._padded(table))

    def _padded(self, rows: Tensor) -> Tensor:
        missing = self.shard.vocab_size - rows.shape[0]
        return rows if not missing else torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])

    def _matrix(self, full: Tensor) -> Matrix:
        """``full``: [..., out, in] in float32."""
        if self.weight_dtype != torch.int8:
            return Matrix(full.to(self.weight_dtype).contiguous())
        scale = full.abs().amax(dim=-1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        return Matrix(torch.round(full / scale[..., None]).to(torch.int8).contiguous(), scale.to(self.act_dtype))

    def _vectors(self, prefix: str, names: Sequence[str]) -> dict[str, Tensor]:
        """Those of ``names`` that the model has, whole."""
        return {name: self._vector(prefix + name) for name in names if prefix + name in self.specs}

    def _vector(self, name: str) -> Tensor:
        return self._load(name, *[ALL] * len(self.specs[name].shape)).to(self.act_dtype)

    def _load(self, name: str, *index: slice) -> Tensor:
        spec: Spec = self.specs[name]
        return load_tensor(spec, self.source, index, self.device)

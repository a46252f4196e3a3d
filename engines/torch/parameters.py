"""A rank's parameters: its slices of the canonical tensors, as ``torch.nn.functional.linear`` takes them."""

from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

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


@dataclass(slots=True)
class Matrix:
    """[out, in] in ``weight_dtype``. int8 is symmetric, with a ``scale`` per output channel of this rank's part."""

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


@dataclass(slots=True)
class LayerParameters:
    """Parameters of one layer. ``inputs`` is gate and up, or GELU's one input; ``vectors``: norms and biases."""

    qkv: Matrix
    o: Matrix
    inputs: Matrix
    wo: Matrix
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
            matrices += [layer.qkv, layer.o, layer.inputs, layer.wo]
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

    def load(self) -> Parameters:
        """All of this rank's parameters."""
        shard, model = self.shard, self.shard.model
        made = Parameters([self._layer(f"layers.{number}.") for number in shard.layers])
        tied = model.tied_embedding
        if shard.is_first or (shard.is_last and tied):
            made.embedding = self._vocab_rows("embedding")
        if shard.is_first and model.position == "learned":
            made.vectors["positions"] = self._vector("positions")
        if shard.is_last:
            made.head = made.embedding if tied else self._vocab_rows("lm_head")
            made.vectors |= {name: self._vector(name) for name in self.specs if name.startswith("final_norm.")}
            if model.lm_head_bias:
                made.vectors["lm_head_bias"] = self._padded(self._load("lm_head_bias", shard.vocab)).to(self.act_dtype)
        return made

    def _layer(self, prefix: str) -> LayerParameters:
        shard, model = self.shard, self.shard.model
        heads, kv, columns = shard.heads, shard.kv_heads, shard.columns
        attention = (("q", heads), ("k", kv), ("v", kv))
        inward = [self._load(f"{prefix}{name}", ALL, part, ALL) for name, part in attention]
        inputs = [self._load(f"{prefix}{name}", ALL, columns) for name in model.ffn.inputs]
        vectors = {
            name: self._vector(f"{prefix}{name}")
            for name in ("attn_norm.scale", "attn_norm.bias", "ffn_norm.scale", "ffn_norm.bias", "o_bias", "wo_bias")
            if f"{prefix}{name}" in self.specs
        }
        if model.attn_bias:
            biases = [self._load(f"{prefix}{name}_bias", part, ALL) for name, part in attention]
            vectors["qkv_bias"] = torch.cat([each.flatten() for each in biases]).to(self.act_dtype)
        if model.ffn_bias:
            biases = [self._load(f"{prefix}{name}_bias", columns) for name in model.ffn.inputs]
            vectors["inputs_bias"] = torch.cat(biases).to(self.act_dtype)
        return LayerParameters(
            qkv=self._matrix(torch.cat([each.flatten(1) for each in inward], dim=1).T),
            o=self._matrix(self._load(f"{prefix}o", heads, ALL, ALL).flatten(0, 1).T),
            inputs=self._matrix(torch.cat(inputs, dim=1).T),
            wo=self._matrix(self._load(f"{prefix}wo", columns, ALL).T),
            vectors=vectors,
        )

    def _vocab_rows(self, name: str) -> Matrix:
        """This rank's rows of [V, E], or columns of [E, V], as [ids, E], padded."""
        ids = self.shard.vocab
        table = self._load(name, ids, ALL) if name == "embedding" else self._load(name, ALL, ids).T
        return self._matrix(self._padded(table))

    def _padded(self, rows: Tensor) -> Tensor:
        missing = self.shard.vocab_size - rows.shape[0]
        return rows if not missing else torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])

    def _matrix(self, full: Tensor) -> Matrix:
        """``full``: [out, in] in float32."""
        if self.weight_dtype != torch.int8:
            return Matrix(full.to(self.weight_dtype).contiguous())
        scale = full.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        return Matrix(torch.round(full / scale[:, None]).to(torch.int8).contiguous(), scale.to(self.act_dtype))

    def _vector(self, name: str) -> Tensor:
        return self._load(name, *[ALL] * len(self.specs[name].shape)).to(self.act_dtype)

    def _load(self, name: str, *index: slice) -> Tensor:
        spec: Spec = self.specs[name]
        return load_tensor(spec, self.source, index, self.device)

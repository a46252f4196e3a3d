"""A rank's part of the forward pass."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.torch.attention import KeysAndValues, Reach, Rotary, attend
from engines.torch.collectives import Links
from engines.torch.parameters import LayerParameters, Parameters
from engines.torch.shard import Shard


class Transformer:
    """Embeds, runs this stage's layers, makes logits; sums over the tensor ranks once or twice a layer."""

    def __init__(self, shard: Shard, parameters: Parameters, links: Links, length: int, dtype: torch.dtype) -> None:
        self.shard, self.parameters, self.links, self.dtype = shard, parameters, links, dtype
        self.model = shard.model
        device = parameters.all()[0].device
        self.rotary = Rotary(self.model, length, device) if self.model.position == "rotary" else None
        self.ids = torch.arange(shard.vocab_size, device=device) + shard.tensor_rank * shard.vocab_size

    def embed(self, tokens: Tensor, reach: Reach) -> Tensor:
        """tokens: [batch, time] → [batch, time, embed]; each rank looks up its ids, and the sum has them all."""
        table = self.parameters.embedding
        assert table is not None
        if self.shard.tensor == 1:
            x = table.rows(tokens, self.dtype)
        else:
            local = tokens - self.ids[0]
            held = (local >= 0) & (local < self.shard.vocab_size)
            rows = table.rows(torch.where(held, local, 0), self.dtype)
            x = self.links.total(torch.where(held[..., None], rows, 0))
        if self.model.position == "learned":
            x = x + self.parameters.vectors["positions"].index_select(0, reach.positions)
        return x

    def layers(self, x: Tensor, cache: Sequence[KeysAndValues], reach: Reach) -> Tensor:
        """x: [batch, time, embed] through this stage. ``cache``: [batch, kv_heads, length, dim] twice a layer."""
        for parameters, layer_cache in zip(self.parameters.layers, cache, strict=True):
            x = self._layer(parameters, x, layer_cache, reach)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """x: [batch, time, embed] → [batch, this rank's ids] of the last token, float32, padding at −inf."""
        head, vectors = self.parameters.head, self.parameters.vectors
        assert head is not None
        out = head(self._norm(vectors, "final_norm", x[:, -1])).float()
        if "lm_head_bias" in vectors:
            out = out + vectors["lm_head_bias"].float()
        return out.masked_fill(self.ids >= self.model.vocab_size, -torch.inf)

    def greedy(self, logits: Tensor) -> Tensor:
        """logits: [batch, this rank's ids] → the most likely id [batch], on every rank; the lowest of equals."""
        best = logits.amax(dim=1)
        ids = torch.where(logits == best[:, None], self.ids, self.model.vocab_size).amin(dim=1)
        if self.shard.tensor == 1:
            return ids
        # Ids are exact in 64-bit floats, so that one gather carries both.
        bests, everyones = self.links.everyones(torch.stack([best.double(), ids.double()])).unbind(dim=1)
        return torch.where(bests == bests.amax(dim=0), everyones, torch.inf).amin(dim=0).long()

    def _layer(self, w: LayerParameters, x: Tensor, cache: KeysAndValues, reach: Reach) -> Tensor:
        first = self._norm(w.vectors, "attn_norm", x)
        if self.model.block == "serial":
            x = x + self._with_bias(w, "o_bias", self.links.total(self._attention(w, first, cache, reach)))
            second = self._norm(w.vectors, "ffn_norm", x)
            return x + self._with_bias(w, "wo_bias", self.links.total(self._feed_forward(w, second)))
        second = self._norm(w.vectors, "ffn_norm", x) if self.model.norms_per_layer == 2 else first
        # Both halves are partial sums of the same shape: one sum over the ranks does for both.
        both = self.links.total(self._attention(w, first, cache, reach) + self._feed_forward(w, second))
        return x + self._with_bias(w, "wo_bias", self._with_bias(w, "o_bias", both))

    def _attention(self, w: LayerParameters, x: Tensor, cache: KeysAndValues, reach: Reach) -> Tensor:
        dim, kv_heads = self.model.head_dim, cache[0].shape[1]
        out = self._with_bias(w, "qkv_bias", w.qkv(x)).unflatten(-1, (-1, dim))
        turned, v = out.split([out.shape[2] - kv_heads, kv_heads], dim=2)
        if self.rotary is not None and reach.turns is not None:
            turned = self.rotary.turn(turned, reach.turns)
        q, k = turned.split([turned.shape[2] - kv_heads, kv_heads], dim=2)
        return w.o(attend(q, k, v, cache, reach))

    def _feed_forward(self, w: LayerParameters, x: Tensor) -> Tensor:
        # Activations and norms widen to float32 within their kernels; widened here, they would move thrice the bytes.
        inputs = self._with_bias(w, "inputs_bias", w.inputs(x))
        if self.model.ffn.gated:
            gate, up = inputs.chunk(2, dim=-1)
            hidden = F.silu(gate) * up
        else:
            hidden = F.gelu(inputs, approximate="tanh" if self.model.activation == "gelu_tanh" else "none")
        return w.wo(hidden)

    def _norm(self, vectors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        """Layernorm or RMSnorm of x: [..., embed]."""
        shape, scale = (x.shape[-1],), vectors[f"{name}.scale"]
        bias = vectors[f"{name}.bias"] if self.model.norm_bias else None
        if self.model.norm == "layernorm":
            return F.layer_norm(x, shape, scale, bias, self.model.norm_epsilon)
        out = F.rms_norm(x, shape, scale, self.model.norm_epsilon)
        return out if bias is None else out + bias

    @staticmethod
    def _with_bias(w: LayerParameters, name: str, x: Tensor) -> Tensor:
        return x + w.vectors[name] if name in w.vectors else x

"""A rank's part of the forward pass."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.torch.attention import CausalMask, KeysAndValues, Rope, attend
from engines.torch.collectives import Collectives
from engines.torch.parameters import LayerParameters, Parameters
from engines.torch.shard import Shard


class Transformer:
    """Embedding, this stage's layers and logits; one or two all-reduces over the tensor ranks per layer."""

    def __init__(
        self, shard: Shard, parameters: Parameters, collectives: Collectives, length: int, dtype: torch.dtype
    ) -> None:
        self.shard, self.parameters, self.collectives, self.dtype = shard, parameters, collectives, dtype
        self.model = shard.model
        device = parameters.all()[0].device
        self.rope = Rope(self.model, length, device) if self.model.position == "rotary" else None
        self.ids = torch.arange(shard.vocab_size, device=device) + shard.tensor_rank * shard.vocab_size

    def embed(self, tokens: Tensor, mask: CausalMask) -> Tensor:
        """tokens: [batch, time] → [batch, time, embed]; each rank looks up its ids, and an all-reduce sums them."""
        table = self.parameters.embedding
        assert table is not None
        if self.shard.tensor == 1:
            x = table.rows(tokens, self.dtype)
        else:
            local = tokens - self.ids[0]
            held = (local >= 0) & (local < self.shard.vocab_size)
            rows = table.rows(torch.where(held, local, 0), self.dtype)
            x = self.collectives.all_reduce(torch.where(held[..., None], rows, 0))
        if self.model.position == "learned":
            x = x + self.parameters.vectors["positions"].index_select(0, mask.positions)
        return x

    def layers(self, x: Tensor, cache: Sequence[KeysAndValues], mask: CausalMask) -> Tensor:
        """x: [batch, time, embed] through this stage; ``cache`` has one entry per layer."""
        for parameters, layer_cache in zip(self.parameters.layers, cache, strict=True):
            x = self._layer(parameters, x, layer_cache, mask)
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
        """logits: [batch, this rank's ids] → the most likely id [batch], on every rank; ties go to the lowest."""
        best = logits.amax(dim=1)
        ids = torch.where(logits == best[:, None], self.ids, self.model.vocab_size).amin(dim=1)
        if self.shard.tensor == 1:
            return ids
        # Ids are exact in float64, so that one all-gather sends both.
        bests, all_ids = self.collectives.all_gather(torch.stack([best.double(), ids.double()])).unbind(dim=1)
        return torch.where(bests == bests.amax(dim=0), all_ids, torch.inf).amin(dim=0).long()

    def _layer(self, w: LayerParameters, x: Tensor, cache: KeysAndValues, mask: CausalMask) -> Tensor:
        first = self._norm(w.vectors, "attn_norm", x)
        if self.model.block == "serial":
            x = x + self._with_bias(w, "o_bias", self.collectives.all_reduce(self._attention(w, first, cache, mask)))
            second = self._norm(w.vectors, "ffn_norm", x)
            return x + self._with_bias(w, "wo_bias", self.collectives.all_reduce(self._feed_forward(w, second)))
        second = self._norm(w.vectors, "ffn_norm", x) if self.model.norms_per_layer == 2 else first
        # Both halves are partial sums of the same shape: one all-reduce serves both.
        both = self.collectives.all_reduce(self._attention(w, first, cache, mask) + self._feed_forward(w, second))
        return x + self._with_bias(w, "wo_bias", self._with_bias(w, "o_bias", both))

    def _attention(self, w: LayerParameters, x: Tensor, cache: KeysAndValues, mask: CausalMask) -> Tensor:
        dim, kv_heads = self.model.head_dim, cache[0].shape[1]
        out = self._with_bias(w, "qkv_bias", w.qkv(x)).unflatten(-1, (-1, dim))
        qk, v = out.split([out.shape[2] - kv_heads, kv_heads], dim=2)
        if self.rope is not None and mask.rope_tables is not None:
            qk = self.rope.rotate(qk, mask.rope_tables)
        q, k = qk.split([qk.shape[2] - kv_heads, kv_heads], dim=2)
        return w.o(attend(q, k, v, cache, mask))

    def _feed_forward(self, w: LayerParameters, x: Tensor) -> Tensor:
        # Activations and norms convert to float32 within their kernels; converting here would move three times the
        # bytes.
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

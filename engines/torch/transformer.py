"""A rank's part of the forward pass."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.core.layer_kind import LayerKind
from engines.core.model import Model
from engines.torch.activation import activated
from engines.torch.attention import Cache, CausalMask, Scores, Window, attend
from engines.torch.collectives import Collectives
from engines.torch.experts import partial_experts, sent_to_experts
from engines.torch.latent_attention import attend_latents
from engines.torch.parameters import LayerParameters, Parameters
from engines.torch.rope import Rope
from engines.torch.shard import Shard

Masks = Mapping[LayerKind, CausalMask]
"""What the new tokens see in each kind of layer."""


class Transformer:
    """Embedding, this stage's layers and logits; one or two all-reduces over the tensor ranks per layer."""

    def __init__(
        self,
        shard: Shard,
        parameters: Parameters,
        collectives: Collectives,
        length: int,
        dtype: torch.dtype,
        latent_attention: str = "auto",
    ) -> None:
        self.shard, self.parameters, self.collectives, self.dtype = shard, parameters, collectives, dtype
        self.model, self.latent_attention = shard.model, latent_attention
        self.splits_tokens = False
        device = parameters.all()[0].device
        self.kinds = list(dict.fromkeys(self.model.layer_kinds[number] for number in shard.layers))
        self.windows = {kind: window_of(self.model, kind, length) for kind in self.kinds}
        self.ropes: dict[LayerKind, Rope] = {}
        if self.model.position == "rotary":
            of_window: dict[bool, Rope] = {}  # kinds differ in nothing else
            for kind in self.kinds:
                windowed = kind.window is not None and self.model.rotary_window_base is not None
                if windowed not in of_window:
                    of_window[windowed] = Rope(self.model, length, device, kind)
                self.ropes[kind] = of_window[windowed]
        self.slopes = _slopes(self.model, shard.heads, device) if self.model.position == "alibi" else None
        self.ids = torch.arange(shard.vocab_size, device=device) + shard.attention_rank * shard.vocab_size

    def masks(self, positions: Tensor, limit: int, exact: bool) -> Masks:
        """See :class:`CausalMask`."""
        return {
            kind: CausalMask(positions, limit, exact, self.ropes.get(kind), self.windows[kind]) for kind in self.kinds
        }

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens: [batch, time] → [batch, time, embed]; each rank looks up its ids, and an all-reduce sums them.

        ``positions``: [time], or as tokens.
        """
        table, model = self.parameters.embedding, self.model
        assert table is not None
        if self.shard.attention == 1:
            x = table.rows(tokens, self.dtype)
        else:
            local = tokens - self.ids[0]
            held = (local >= 0) & (local < self.shard.vocab_size)
            rows = table.rows(torch.where(held, local, 0), self.dtype)
            x = self.collectives.reduce_attention(torch.where(held[..., None], rows, 0))
        if model.embedding_scale != 1:
            x = x * model.embedding_scale
        if model.position == "learned":
            learned = self.parameters.vectors["positions"]
            x = x + (learned.index_select(0, positions) if positions.ndim == 1 else F.embedding(positions, learned))
        return self._norm(self.parameters.vectors, "embedding_norm", x) if model.embedding_norm else x

    def layers(
        self, x: Tensor, stage: Iterable[tuple[LayerParameters, Cache]], masks: Masks, longest: int | None = None
    ) -> Tensor:
        """x: [batch, time, embed] through this stage's layers, each with its cache.

        ``longest`` is the time of the group of sequences that has most, where they differ.
        """
        shape = x.shape
        if self.splits_tokens:
            x = self.collectives.own_tokens(x.flatten(0, 1))
        for parameters, layer_cache in stage:
            x = self._layer(parameters, x, layer_cache, masks[parameters.kind], shape, longest or shape[1])
        return self._whole(x, shape)

    def _whole(self, x: Tensor, shape: torch.Size) -> Tensor:
        """x, gathered to ``shape`` [batch, time, embed] where each rank has the norms of its own tokens."""
        return self.collectives.gather_tokens(x)[: shape[:2].numel()].view(shape) if self.splits_tokens else x

    def _summed(self, partial: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """The sum over ranks of ``partial`` [batch, time, embed], whole by ``reduce``, or of this rank's own tokens.

        A reduce-scatter and the next all-gather take the place of an all-reduce (Korthikanti et al. 2022, section 4.2).
        """
        return self.collectives.reduce_scatter_tokens(partial.flatten(0, 1)) if self.splits_tokens else reduce(partial)

    def logits(self, x: Tensor, last: Tensor | None = None) -> Tensor:
        """x: [batch, time, embed] → [batch, this rank's ids] of the last token, float32, padding at −inf.

        ``last`` [batch] are the last tokens' places among all of x, where they are not at the end of each row.
        """
        head, vectors = self.parameters.head, self.parameters.vectors
        assert head is not None
        ends = x[:, -1] if last is None else x.flatten(0, 1).index_select(0, last)
        out = head(self._norm(vectors, "final_norm", ends)).float()
        if "lm_head_bias" in vectors:
            out = out + vectors["lm_head_bias"].float()
        if self.model.logit_scale != 1:
            out = out * self.model.logit_scale
        if self.model.logit_softcap is not None:
            out = torch.tanh(out / self.model.logit_softcap) * self.model.logit_softcap
        return out.masked_fill(self.ids >= self.model.vocab_size, -torch.inf)

    def greedy(self, logits: Tensor) -> Tensor:
        """logits: [batch, this rank's ids] → the most likely id [batch], on every rank; ties go to the lowest."""
        best = logits.amax(dim=1)
        ids = torch.where(logits == best[:, None], self.ids, self.model.vocab_size).amin(dim=1)
        if self.shard.attention == 1:
            return ids
        # Ids are exact in float64, so that one all-gather sends both.
        sent = torch.stack([best.double(), ids.double()])
        bests, all_ids = self.collectives.gather_vocabulary(sent).unbind(dim=1)
        return torch.where(bests == bests.amax(dim=0), all_ids, torch.inf).amin(dim=0).long()

    def _layer(
        self, w: LayerParameters, x: Tensor, cache: Cache, mask: CausalMask, shape: torch.Size, longest: int
    ) -> Tensor:
        model, reduce = self.model, self.collectives.reduce_attention
        if model.block == "serial":
            read = self._whole(self._before(w, "attn", x), shape)
            out = self._summed(self._attention(w, read, cache, mask), reduce)
            x = self._joined(w, "attn", x, self._with_bias(w, "o_bias", out))
            out = self._fed_forward(w, self._whole(self._before(w, "ffn", x), shape), longest)
            return self._joined(w, "ffn", x, self._with_bias(w, "wo_bias", out))
        first = self._whole(self._norm(w.vectors, "attn_norm", x), shape)
        second = first
        if model.norms_per_layer == 2:
            second = self._whole(self._norm(w.vectors, "ffn_norm", x), shape)
        if self.shard.data == 1:
            # Both halves are partial sums of the same shape: one all-reduce serves both.
            partial = self._attention(w, first, cache, mask) + self._feed_forward(w, second)
            both = self._summed(partial, self.collectives.all_reduce)
        else:
            both = reduce(self._attention(w, first, cache, mask))
            both = both + self._fed_forward(w, second, longest)
        return self._joined(w, "", x, self._with_bias(w, "wo_bias", self._with_bias(w, "o_bias", both)))

    def _before(self, w: LayerParameters, half: str, x: Tensor) -> Tensor:
        return x if self.model.norm_position == "after" else self._norm(w.vectors, f"{half}_norm", x)

    def _joined(self, w: LayerParameters, half: str, x: Tensor, out: Tensor) -> Tensor:
        """The residual stream with what a half of a layer adds to it."""
        if half and self.model.norm_position != "before":
            out = self._norm(w.vectors, f"{half}_post_norm", out)
        return x + (out if self.model.residual_scale == 1 else out * self.model.residual_scale)

    def _attention(self, w: LayerParameters, x: Tensor, cache: Cache, mask: CausalMask) -> Tensor:
        model, dim = self.model, self.model.head_dim
        rope = self.ropes.get(w.kind)
        if model.attention.is_latent:
            assert rope is not None
            absorbed = self.latent_attention == "absorbed" or (self.latent_attention == "auto" and not mask.is_prompt)
            return w.matrices["o"](attend_latents(model, w, x, cache, mask, rope, absorbed))
        kv_heads = cache[0].shape[1]
        out = self._with_bias(w, "qkv_bias", w.matrices["qkv"](x)).unflatten(-1, (-1, dim))
        qk, v = out.split([out.shape[2] - kv_heads, kv_heads], dim=2)
        if model.qk_norm:
            q, k = qk.split([qk.shape[2] - kv_heads, kv_heads], dim=2)
            normed = ((q, "q_norm.scale"), (k, "k_norm.scale"))
            qk = torch.cat([F.rms_norm(each, (dim,), w.vectors[name], model.norm_epsilon) for each, name in normed], 2)
        if rope is not None and mask.rope_tables is not None:
            qk = rope.rotate(qk, mask.rope_tables)
        q, k = qk.split([qk.shape[2] - kv_heads, kv_heads], dim=2)
        scores = Scores(model.attn_scale, model.attn_softcap, self.slopes, w.vectors.get("sinks"))
        return w.matrices["o"](attend(q, k, v, cache, mask, scores))

    def _fed_forward(self, w: LayerParameters, x: Tensor, longest: int) -> Tensor:
        """x: [batch, time, embed] of this rank's sequences → the whole output of the feed-forward for them.

        Groups of sequences are gathered at the time of the ``longest``: a gather takes parts of one size.
        """
        if self.shard.data == 1:
            return self._summed(self._feed_forward(w, x), self.collectives.all_reduce)
        layer = self.model.experts if w.kind.has_experts else None
        sent = None
        if layer is not None and self.shard.sends_tokens:
            sent = sent_to_experts(self.shard, layer, w, x, self.collectives)
            if layer.shared is None:
                return sent
        every = self.collectives.gather_sequences(F.pad(x, (0, 0, 0, longest - x.shape[1])))
        partial = self._feed_forward(w, every) if sent is None else self._shared(w, every)
        whole = self.collectives.all_reduce(partial)[self.shard.sequences(every.shape[0]), : x.shape[1]]
        return whole if sent is None else whole + sent

    def _feed_forward(self, w: LayerParameters, x: Tensor) -> Tensor:
        """This rank's part of the output, to be summed over the tensor ranks."""
        if not w.kind.has_experts:
            return self._dense(w, "", x)
        assert self.model.experts is not None
        out = partial_experts(self.shard, self.model.experts, w, x)
        return out if self.model.experts.shared is None else out + self._shared(w, x)

    def _shared(self, w: LayerParameters, x: Tensor) -> Tensor:
        """This rank's part of the shared expert's output."""
        out = self._with_bias(w, "shared.wo_bias", self._dense(w, "shared.", x))
        gate = w.vectors.get("shared_gate")
        return out if gate is None else out * F.linear(x.float(), gate).sigmoid().to(out.dtype)

    def _dense(self, w: LayerParameters, part: str, x: Tensor) -> Tensor:
        inputs = self._with_bias(w, f"{part}inputs_bias", w.matrices[f"{part}inputs"](x))
        return w.matrices[f"{part}wo"](activated(self.model.activation, inputs))

    def _norm(self, vectors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        """Layernorm or RMSnorm of x: [..., embed]."""
        # Norms convert to float32 within their kernels.
        shape, scale = (x.shape[-1],), vectors[f"{name}.scale"]
        bias = vectors[f"{name}.bias"] if self.model.norm_bias else None
        if self.model.norm == "layernorm":
            return F.layer_norm(x, shape, scale, bias, self.model.norm_epsilon)
        out = F.rms_norm(x, shape, scale, self.model.norm_epsilon)
        return out if bias is None else out + bias

    @staticmethod
    def _with_bias(w: LayerParameters, name: str, x: Tensor) -> Tensor:
        return x + w.vectors[name] if name in w.vectors else x


def window_of(model: Model, kind: LayerKind, length: int) -> Window | None:
    """The window of a kind of layer, and its room in a cache; None where no text of ``length`` outgrows it."""
    if kind.window is None or kind.window >= length:
        return None
    return Window(kind.window, kind.window, model.window_kind == "chunked")


def _slopes(model: Model, heads: slice, device: torch.device) -> Tensor:
    """ALiBi's slopes of these heads: 2^(−8i/n) for i = 1 … n, n a power of two (Press et al. 2022, section 3).

    With another number of heads, the rest are every second one of those of twice the power below it (their code).
    """
    power = 1 << (model.num_heads.bit_length() - 1)
    found = [2.0 ** (-8 * each / power) for each in range(1, power + 1)]
    found += [2.0 ** (-4 * each / power) for each in range(1, 2 * (model.num_heads - power), 2)]
    return torch.tensor(found[heads], dtype=torch.float32).to(device)

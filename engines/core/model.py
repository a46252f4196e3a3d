"""A Transformer's architecture, and the sizes and FLOPs that follow from it.

Symbols as in Pope et al. 2022: E = d_model, F = d_ff, H = query heads, K = key/value heads, D = head_dim.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args, get_origin

from engines.core.attention import Attention, AttentionKeys
from engines.core.errors import InvalidRequest
from engines.core.experts import ExpertKeys, Experts
from engines.core.extension import EXTENSION
from engines.core.feed_forward import Activation, FeedForward
from engines.core.keys import LARGEST
from engines.core.layer_kind import LayerKind, Segment, seen_pairs, segments_of
from engines.core.model_checks import check_model
from engines.core.rotary import Rotary, RotaryKeys, rotary_of, stretched
from engines.core.typed import check_types, types_of

Block = Literal["parallel", "serial"]
Position = Literal["rotary", "learned", "alibi", "none"]
Norm = Literal["layernorm", "rmsnorm"]
NormPosition = Literal["before", "after", "both"]


@dataclass(frozen=True, kw_only=True)
class Model(RotaryKeys, AttentionKeys, ExpertKeys):
    """One architecture; every field is a key of ``conf/model/*.yaml``.

    ``published_params`` is the size that its authors state and checks our own count; ``mfu_params`` is the N by which
    MFU divides (the paper rounds: 540e9), of a mixture of experts that of a token's own parameters. ``norms_per_layer``
    is 2 for a serial block, 4 where ``norm_position`` is both; a parallel block has 1, or 2 where attention and
    feed-forward each read a norm of their own (falcon-40b). Norms stand ``before`` each half, ``after`` it (on what
    joins the residual stream), or both. ``position=alibi`` adds to each score the distance times a slope of its head
    (Press et al. 2022, arXiv 2108.12409). ``embedding_norm`` norms the embedded tokens, ``embedding_scale`` multiplies
    them, ``residual_scale`` what each half adds to the stream, ``logit_scale`` the logits; ``logit_softcap`` c makes a
    logit l c·tanh(l/c). An ``encoder`` reads hidden states, lets every token attend to all others and writes hidden
    states: it has no embedding, final norm or output matrix, caches nothing, and has prefill points alone. Keys about
    rotary positions, attention and experts: :class:`RotaryKeys`, :class:`AttentionKeys`, :class:`ExpertKeys`.
    """

    name: str
    num_layers: int
    d_model: int
    d_ff: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    block: Block
    activation: Activation = field(metadata={EXTENSION: ("relu", "geglu", "swiglu_clamped")})
    position: Position = field(metadata={EXTENSION: ("alibi",)})
    norm: Norm
    published_params: float
    mfu_params: float
    source: str
    norms_per_layer: int
    tied_embedding: bool
    ffn_bias: bool = False
    norm_bias: bool = False
    lm_head_bias: bool = False
    max_positions: int = 2048
    norm_epsilon: float = 1e-5
    norm_position: NormPosition = field(default="before", metadata={EXTENSION: True})
    embedding_norm: bool = field(default=False, metadata={EXTENSION: True})
    embedding_scale: float = field(default=1.0, metadata={EXTENSION: True})
    residual_scale: float = field(default=1.0, metadata={EXTENSION: True})
    logit_scale: float = field(default=1.0, metadata={EXTENSION: True})
    logit_softcap: float | None = field(default=None, metadata={EXTENSION: True})
    encoder: bool = field(default=False, metadata={EXTENSION: True})

    def __post_init__(self) -> None:
        stated = {name: each for name, each in types_of(type(self)).items() if get_origin(each) is not Literal}
        check_types("model.", {name: getattr(self, name) for name in stated}, stated, "see conf/model/tiny.yaml")
        for name in ("rotary_short_factors", "rotary_long_factors"):  # YAML has lists
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, wanted in stated.items():
            value = getattr(self, name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value <= 0:
                raise InvalidRequest(f"model.{name}", value, "must be > 0", "use a number > 0")
            if wanted in (int, int | None) and value is not None and value > LARGEST:
                raise InvalidRequest(f"model.{name}", value, f"is larger than {LARGEST}", "use what 32 bits hold")
        for name, annotation in types_of(type(self)).items():
            allowed = get_args(annotation)
            if get_origin(annotation) is Literal and getattr(self, name) not in allowed:
                raise InvalidRequest(
                    f"model.{name}", getattr(self, name), "is not known", f"use {' or '.join(allowed)}"
                )
        check_model(self)

    def check_phase(self, phase: str) -> None:
        """Check that the model can be asked for a phase.

        Raises:
            InvalidRequest: an encoder is asked for tokens.
        """
        if self.encoder and phase != "prefill":
            raise InvalidRequest("phase", phase, f"generates tokens and {self.name} is an encoder", "use phase=prefill")

    @property
    def rotated_dim(self) -> int:
        """Number of a head's dimensions that rotary embeddings rotate."""
        return self.rotary_dim or self.head_dim

    @property
    def rotary_frequencies(self) -> tuple[float, ...]:
        """Radians a position of each pair of a head's turned dimensions, in a layer that sees all of a short text."""
        return stretched(self, self.rotated_dim)

    def rotary(self, kind: LayerKind, length: int) -> Rotary:
        """How positions turn in a layer of that kind; ``length`` is the longest text that it reads."""
        return rotary_of(self, self.rotated_dim, kind.window is not None, length)

    @cached_property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """The kind of each layer."""
        every, found = self.global_every, []
        for number in range(self.num_layers):
            sees_all = every is not None and (number + 1) % every == 0
            has_experts = self.num_experts is not None and number >= (self.dense_layers or 0)
            found.append(LayerKind(None if sees_all else self.attention_window, has_experts))
        return tuple(found)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The layers as what loops over them run."""
        return segments_of(self.layer_kinds, self.global_every or 1)

    @property
    def attention(self) -> Attention:
        """The attention of a layer."""
        return Attention(self.d_model, self.num_heads, self.num_kv_heads, self.head_dim, self.rotated_dim, self)

    @property
    def ffn(self) -> FeedForward:
        """The dense feed-forward of a layer, where it has one."""
        return FeedForward(self.d_model, self.d_ff, self.activation, self.ffn_bias)

    @property
    def experts(self) -> Experts | None:
        """The experts of a layer that has some."""
        if self.num_experts is None:
            return None
        assert self.experts_per_token is not None

        def of_width(d_ff: int, has_bias: bool) -> FeedForward:
            return FeedForward(self.d_model, d_ff, self.activation, has_bias)

        one = of_width(self.expert_d_ff or self.d_ff, self.ffn_bias)
        shared = None if self.shared_expert_d_ff is None else of_width(self.shared_expert_d_ff, self.ffn_bias)
        return Experts(self.num_experts, self.experts_per_token, one, shared, self)

    def feed_forward(self, kind: LayerKind) -> FeedForward | Experts:
        """What follows attention in a layer of that kind."""
        if not kind.has_experts:
            return self.ffn
        assert self.experts is not None
        return self.experts

    @property
    def has_output_bias(self) -> bool:
        """Whether attention's output projection has a bias."""
        return self.attn_bias and self.attn_output_bias

    @property
    def shares_norm(self) -> bool:
        """Whether attention and feed-forward read the same norm: a parallel block with one."""
        return self.block == "parallel" and self.norms_per_layer == 1

    def layer_matmul_params(self, kind: LayerKind) -> int:
        """Elements of the matrices of one layer of that kind: attention's and the feed-forward's."""
        return self.attention.matmul_params + self.feed_forward(kind).matmul_params

    def layer_params(self, kind: LayerKind) -> int:
        """All parameters of one layer of that kind: matrices, norm scales, biases."""
        return self.norms_per_layer * self.norm_params + self.attention.params + self.feed_forward(kind).params

    @cached_property
    def matmul_params(self) -> int:
        """Elements of the matrices of all layers."""
        return sum(map(self.layer_matmul_params, self.layer_kinds))

    @cached_property
    def layers_params(self) -> int:
        """All parameters of all layers."""
        return sum(map(self.layer_params, self.layer_kinds))

    @property
    def embedding_params(self) -> int:
        """V·E for the input embedding, again for an untied output, P·E for learned positions; an encoder has none."""
        if self.encoder:
            return 0
        tables = 1 if self.tied_embedding else 2
        positions = self.max_positions * self.d_model if self.position == "learned" else 0
        head_bias = self.vocab_size if self.lm_head_bias else 0
        norm = self.norm_params if self.embedding_norm else 0
        return tables * self.vocab_size * self.d_model + positions + head_bias + norm

    @property
    def norm_params(self) -> int:
        """Elements of one norm over E: its scale, and its bias where it has one."""
        return self.d_model * (2 if self.norm_bias else 1)

    @property
    def final_norm_params(self) -> int:
        """Elements of the norm before the output matrix; an encoder has neither."""
        return 0 if self.encoder else self.norm_params

    @property
    def head_params(self) -> int:
        """V·E of the output matrix, tied or not; an encoder has none."""
        return 0 if self.encoder else self.vocab_size * self.d_model

    @property
    def params(self) -> int:
        """All parameters, counted from the architecture."""
        return self.layers_params + self.embedding_params + self.final_norm_params

    @property
    def active_params(self) -> int:
        """Parameters that one token meets: all but those of the experts to which it does not go."""
        idle = 0
        if self.experts is not None:
            idle = (self.experts.count - self.experts.per_token) * self.experts.expert.params
        return self.params - idle * sum(kind.has_experts for kind in self.layer_kinds)

    @property
    def matmul_flops_per_token(self) -> int:
        """FLOPs of all weight matmuls for one token: 2 per weight, with the output embedding, without attention."""
        active = sum(self.attention.matmul_params + self.feed_forward(kind).active_params for kind in self.layer_kinds)
        return 2 * (active + self.head_params)

    @property
    def model_flops_per_token(self) -> float:
        """2N with N = ``mfu_params``: the only FLOPs that MFU counts (Pope et al. 2022, section 2)."""
        return 2.0 * self.mfu_params

    def attention_flops(self, query_len: int, context_len: int) -> int:
        """FLOPs of q·kᵀ and of weights·v for one sequence through all layers, :meth:`Attention.flops` of the pairs.

        ``query_len`` new tokens attend to ``context_len`` tokens that end with them, causally: query i sees
        context_len − query_len + i + 1 keys, or those of its window. Those of an encoder see all of them.
        """
        if self.encoder:
            return self.num_layers * self.attention.flops(query_len * context_len)
        first = context_len - query_len
        windows = Counter(kind.window for kind in self.layer_kinds)
        pairs = sum(
            layers * seen_pairs(first, context_len, window, self.window_kind) for window, layers in windows.items()
        )
        return self.attention.flops(pairs)

    def kv_elements_per_token(self) -> int:
        """Elements of the cache of all layers for one token that each of them keeps: 2·layers·K·D of heads.

        0 of an encoder. A layer with a window keeps a token only while it is in the window.
        """
        return 0 if self.encoder else self.num_layers * self.attention.cached_elements

"""A Transformer's architecture, and the sizes and FLOPs that follow from it.

Symbols as in Pope et al. 2022: E = d_model, F = d_ff, H = query heads, K = key/value heads, D = head_dim.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Final, Literal, get_origin

from engines.core.errors import InvalidRequest, Unsupported
from engines.core.feed_forward import Activation, FeedForward
from engines.core.keys import LARGEST
from engines.core.typed import check_types, types_of

EXTENSION: Final = "extension"
"""In a field's metadata: every engine runs its default, and one that does not read the field refuses other values.

A tuple names the values that not every engine runs, where the field has no default.
"""
Block = Literal["parallel", "serial"]
Position = Literal["rotary", "learned", "alibi", "none"]
Norm = Literal["layernorm", "rmsnorm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One architecture; every field is a key of ``conf/model/*.yaml``.

    ``published_params`` is the size that its authors state and checks our own count; ``mfu_params`` is the N by which
    MFU divides (the paper rounds: 540e9). ``attn_bias`` means q, k, v and o; without ``attn_output_bias`` o has none,
    as in Qwen 2. ``norms_per_layer`` is 2 for a serial block; a parallel block has 1, or 2 where attention and
    feed-forward each read a norm of their own (falcon-40b). ``rotary_factor`` and the keys after it stretch rotary
    positions over longer texts, see :attr:`rotary_frequencies`. ``position=alibi`` adds to each score the distance
    times a slope of its head (Press et al. 2022, arXiv 2108.12409). ``embedding_norm`` norms the embedded tokens,
    ``qk_norm`` every query and key head by one scale each. An ``encoder`` reads hidden states, lets every token attend
    to all others and writes hidden states: it has no embedding, final norm or output matrix, caches nothing, and has
    prefill points alone.
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
    activation: Activation = field(metadata={EXTENSION: ("relu",)})
    position: Position = field(metadata={EXTENSION: ("alibi",)})
    norm: Norm
    published_params: float
    mfu_params: float
    source: str
    norms_per_layer: int
    tied_embedding: bool
    attn_bias: bool = False
    attn_output_bias: bool = field(default=True, metadata={EXTENSION: True})
    ffn_bias: bool = False
    norm_bias: bool = False
    lm_head_bias: bool = False
    max_positions: int = 2048
    rotary_dim: int | None = None
    rotary_base: float = 10000.0
    rotary_interleaved: bool = False
    rotary_factor: float = 1.0
    rotary_low_factor: float = 1.0
    rotary_high_factor: float = 4.0
    rotary_original_positions: int | None = None
    norm_epsilon: float = 1e-5
    qk_norm: bool = field(default=False, metadata={EXTENSION: True})
    embedding_norm: bool = field(default=False, metadata={EXTENSION: True})
    encoder: bool = field(default=False, metadata={EXTENSION: True})

    def __post_init__(self) -> None:
        stated = {name: each for name, each in types_of(type(self)).items() if get_origin(each) is not Literal}
        check_types("model.", {name: getattr(self, name) for name in stated}, stated, "see conf/model/tiny.yaml")
        for name, wanted in stated.items():
            value = getattr(self, name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value <= 0:
                raise InvalidRequest(f"model.{name}", value, "must be > 0", "use a number > 0")
            if wanted in (int, int | None) and value is not None and value > LARGEST:
                raise InvalidRequest(f"model.{name}", value, f"is larger than {LARGEST}", "use what 32 bits hold")
        for name, allowed in (
            ("block", ("parallel", "serial")),
            ("activation", ("swiglu", "gelu", "gelu_tanh", "relu")),
            ("position", ("rotary", "learned", "alibi", "none")),
            ("norm", ("layernorm", "rmsnorm")),
        ):
            if getattr(self, name) not in allowed:
                raise InvalidRequest(
                    f"model.{name}", getattr(self, name), "is not known", f"use {' or '.join(allowed)}"
                )
        if self.num_heads % self.num_kv_heads:
            raise InvalidRequest(
                "model.num_kv_heads",
                self.num_kv_heads,
                f"must divide num_heads={self.num_heads}",
                "every key/value head serves the same number of query heads",
            )
        if self.block == "serial" and self.norms_per_layer != 2:
            raise InvalidRequest("model.norms_per_layer", self.norms_per_layer, "must be 2 for a serial block", "use 2")

        if not (self.attn_bias or self.attn_output_bias):
            raise InvalidRequest(
                "model.attn_output_bias",
                False,
                "must be true without attn_bias",
                "it takes a bias out of attn_bias's four",
            )
        if self.position == "rotary" and (self.rotated_dim % 2 or self.rotated_dim > self.head_dim):
            raise InvalidRequest(
                "model.rotary_dim",
                self.rotated_dim,
                f"must be even and ≤ head_dim={self.head_dim}",
                "rotary embeddings rotate pairs of a head's dimensions",
            )

    def check_extensions(self, engine: str, read: Collection[str] = ()) -> None:
        """Check that an engine reads every key that changes the model from what all engines run.

        Raises:
            Unsupported: a key marked :data:`EXTENSION` is not at its default, and not one of those that it ``read``.
        """
        for each in fields(self):
            value, marked = getattr(self, each.name), each.metadata.get(EXTENSION)
            if not marked or each.name in read:
                continue
            if isinstance(marked, tuple):
                if value in marked:
                    raise Unsupported(
                        f"model.{each.name}={value}: engine={engine} does not run it; use an engine that reads it"
                    )
            elif value != each.default:
                plain = "null" if each.default is None else each.default
                raise Unsupported(
                    f"model.{each.name}={value}: engine={engine} runs model.{each.name}={plain} alone; "
                    "use an engine that reads this key"
                )

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
        """Radians a position of each pair: base^(−2i/dim) (Su et al. 2021), divided by ``rotary_factor``.

        With P = ``rotary_original_positions`` only slow pairs are divided, as in Llama 3.1's released code: those that
        turn less than ``rotary_low_factor`` times over P positions wholly, those that turn more than
        ``rotary_high_factor`` times not at all, and between them in proportion.
        """
        dim, positions = self.rotated_dim, self.rotary_original_positions
        found = []
        for pair in range(0, dim, 2):
            fast = self.rotary_base ** (-pair / dim)
            kept = 0.0
            if positions is not None:
                turns = positions * fast / (2 * math.pi)
                span = self.rotary_high_factor - self.rotary_low_factor
                kept = min(1.0, max(0.0, (turns - self.rotary_low_factor) / span))
            found.append(kept * fast + (1 - kept) * fast / self.rotary_factor)
        return tuple(found)

    @property
    def ffn(self) -> FeedForward:
        """The feed-forward of a layer."""
        return FeedForward(self.d_model, self.d_ff, self.activation, self.ffn_bias)

    @property
    def has_output_bias(self) -> bool:
        """Whether attention's output projection has a bias."""
        return self.attn_bias and self.attn_output_bias

    @property
    def shares_norm(self) -> bool:
        """Whether attention and feed-forward read the same norm: a parallel block with one."""
        return self.block == "parallel" and self.norms_per_layer == 1

    @property
    def layer_matmul_params(self) -> int:
        """Elements of the matrices of one layer: E·H·D (q) + 2·E·K·D (k, v) + H·D·E (o) + the feed-forward's."""
        attention = 2 * self.d_model * self.head_dim * (self.num_heads + self.num_kv_heads)
        return attention + self.ffn.matmul_params

    @property
    def layer_params(self) -> int:
        """All parameters of one layer: matrices, norm scales, biases."""
        norms = self.norms_per_layer * self.norm_params
        attn_bias = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim if self.attn_bias else 0
        output_bias = self.d_model if self.has_output_bias else 0
        head_norms = 2 * self.head_dim if self.qk_norm else 0
        others = norms + head_norms + attn_bias + output_bias
        return self.layer_matmul_params - self.ffn.matmul_params + self.ffn.params + others

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
        return self.num_layers * self.layer_params + self.embedding_params + self.final_norm_params

    @property
    def matmul_flops_per_token(self) -> int:
        """FLOPs of all weight matmuls for one token: 2 per weight, with the output embedding, without attention."""
        idle = self.ffn.matmul_params - self.ffn.active_params
        return 2 * (self.num_layers * (self.layer_matmul_params - idle) + self.head_params)

    @property
    def model_flops_per_token(self) -> float:
        """2N with N = ``mfu_params``: the only FLOPs that MFU counts (Pope et al. 2022, section 2)."""
        return 2.0 * self.mfu_params

    def attention_flops(self, query_len: int, context_len: int) -> int:
        """FLOPs of q·kᵀ and of weights·v for one sequence through all layers: 4·H·D a query and key.

        ``query_len`` new tokens attend to ``context_len`` tokens that end with them, causally: query i sees
        context_len − query_len + i + 1 keys. Those of an encoder see all of them.
        """
        pairs = query_len * (context_len - query_len) + query_len * (query_len + 1) // 2
        if self.encoder:
            pairs = query_len * context_len
        return 4 * self.num_layers * self.num_heads * self.head_dim * pairs

    def kv_elements_per_token(self) -> int:
        """Elements of the key/value cache for one token: 2·layers·K·D; 0 of an encoder."""
        return 0 if self.encoder else 2 * self.num_layers * self.num_kv_heads * self.head_dim

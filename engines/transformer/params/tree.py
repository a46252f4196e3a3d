"""The model's parameters as JAX sees them: pytrees of matrices, norms and projections.

Leaves are arrays, or descriptions of arrays (shapes, shardings), in the same structure. Data fields are in alphabetical
order, so that a program's arguments keep their order when a new kind of parameter is added.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import jax
from jax import Array, lax

from engines.transformer.params.grouped import Grouped, Weights, group_size_of

Parts = tuple[tuple[str, int], ...]
"""The tensors of a fused matrix in the order of a chunk: (name, columns or rows in one chunk)."""


@partial(jax.tree_util.register_dataclass, data_fields=("values", "bias", "scale"), meta_fields=("parts",))
@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix in its number format: with a ``scale`` for each output channel where it is quantized, and a ``bias``.

    ``values`` of a layer's matrix are stacked [layers, rows, columns], or the :class:`Stacked` matrix of one layer. In
    groups they hold the scales and zero points of these as well (:class:`engines.transformer.params.grouped.Grouped`).
    """

    values: Any
    bias: Any = None
    scale: Any = None
    parts: Parts = ()

    @property
    def chunk_width(self) -> int:
        """Columns (or rows) of one chunk, of all tensors together."""
        return sum(width for _, width in self.parts)


@partial(jax.tree_util.register_dataclass, data_fields=("bias", "scale"), meta_fields=())
@dataclass(frozen=True, slots=True)
class Norm:
    """Scale and bias [E] of a layernorm or RMSnorm; the bias is None where the model has none."""

    scale: Any
    bias: Any = None


@partial(jax.tree_util.register_dataclass, data_fields=("inputs", "outputs"), meta_fields=())
@dataclass(frozen=True, slots=True)
class Projection:
    """Input matrix, E to columns (q, k, v, hidden units), and output matrix, back to E; None if elsewhere."""

    inputs: Any = None
    outputs: Any = None


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("correction", "inputs", "outputs", "router", "shared", "shared_gate"),
    meta_fields=(),
)
@dataclass(frozen=True, slots=True)
class ExpertParameters:
    """Of layers with experts: the matrices of every expert, stacked [layers, experts, rows, columns], and the rest.

    ``router`` is [layers, E, experts], ``correction`` [layers, experts], ``shared_gate`` [layers, E].
    """

    inputs: Matrix
    outputs: Matrix
    router: Matrix
    correction: Any = None
    shared: Projection | None = None
    shared_gate: Any = None


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("k_b", "kv_norm", "q_b", "q_norm", "v_b"),
    meta_fields=(),
)
@dataclass(frozen=True, slots=True)
class Latent:
    """Up-projections of latent attention, latent to columns of every chunk's heads, and the norms of the latents.

    ``kv_norm`` and ``q_norm`` are scales, [latent]; without a latent of queries ``q_b`` and ``q_norm`` are None.
    """

    k_b: Matrix
    v_b: Matrix
    kv_norm: Any
    q_b: Matrix | None = None
    q_norm: Any = None


@partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        "attn",
        "attn_norm",
        "attn_post_norm",
        "experts",
        "ffn",
        "ffn_norm",
        "ffn_post_norm",
        "fused",
        "heads",
        "latent",
        "single",
    ),
    meta_fields=(),
)
@dataclass(frozen=True, slots=True)
class LayerParameters:
    """Parameters of one layer, or of several layers of one kind, stacked along a first axis.

    Attention and feed-forward have a projection each (``attn``, ``ffn``) or share one (``fused``); ``single`` has the
    feed-forward's tensors that are a projection of their own, by name (:mod:`params.fusion`). ``experts`` stand in the
    place of ``ffn``, ``latent`` has what latent attention needs besides. Norms stand before each
    half, after it (``post``), or both. ``heads`` are attention's vectors: ``q_norm`` and ``k_norm`` [D], scales of the
    norms of heads, and ``sinks`` [padded heads], in base 2.
    """

    attn_norm: Norm | None = None
    ffn_norm: Norm | None = None
    attn_post_norm: Norm | None = None
    ffn_post_norm: Norm | None = None
    attn: Projection | None = None
    experts: ExpertParameters | None = None
    ffn: Projection | None = None
    fused: Projection | None = None
    heads: dict[str, Any] = field(default_factory=dict)
    latent: Latent | None = None
    single: dict[str, Projection] = field(default_factory=dict)

    def projection(self, name: str) -> Projection:
        """The projection of that name, as :mod:`params.fusion` groups tensors."""
        found = self.single.get(name) or getattr(self, name)
        assert isinstance(found, Projection)
        return found


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("embedding", "embedding_norm", "final_norm", "layers", "lm_head", "positions"),
    meta_fields=(),
)
@dataclass(frozen=True, slots=True)
class Parameters:
    """All parameters of a model: ``layers`` are those of each of the plan's stacks.

    ``embedding`` is [vocab, E], ``lm_head`` the same if untied, ``positions`` [P, E].
    """

    embedding: Matrix
    final_norm: Norm
    layers: tuple[LayerParameters, ...]
    lm_head: Matrix | None = None
    positions: Any = None
    embedding_norm: Norm | None = None

    @property
    def output(self) -> Matrix:
        """The matrix that computes logits: ``lm_head``, or the embedding where they are tied."""
        return self.embedding if self.lm_head is None else self.lm_head


@dataclass(frozen=True, slots=True)
class Stacked:
    """Layer ``layer`` of stacked matrices [layers, rows, columns], read only by :meth:`block`.

    Blocks are sliced from the stack itself: if several slices read one layer's matrix, a TPU first copies it whole.
    """

    stack: Weights
    layer: Any

    def block(self, rows: slice, columns: slice) -> Weights:
        """The block [rows, columns], whose bounds are static."""
        shape = self.stack.shape[1:]
        bounds = [each.indices(size)[:2] for each, size in zip((rows, columns), shape, strict=True)]
        (top, bottom), (left, right) = bounds

        size = group_size_of(self.stack)
        first, last = top // size, -(-bottom // size)

        def cut(each: Array) -> Array:
            start = (self.layer, first, *[0] * (each.ndim - 3), left)
            part: Array = lax.dynamic_slice(each, start, (1, last - first, *each.shape[2:-1], right - left))[0]
            return part

        if not isinstance(self.stack, Grouped):
            return cut(self.stack)
        ragged = (last - first) * size != bottom - top
        return replace(self.stack.map(cut), skipped=top % size, rows=bottom - top if ragged else None)

    def whole(self) -> Weights:
        """The whole matrix [rows, columns]."""
        return self.block(slice(None), slice(None))

    def experts(self) -> Weights:
        """The matrices [experts, rows, columns] of a layer of a stack that has experts as its second dimension."""
        return _each(self.stack, lambda each: lax.dynamic_index_in_dim(each, self.layer, 0, keepdims=False))

    def expert(self, number: Any) -> Weights:
        """The matrix [rows, columns] of one expert of such a stack."""

        def cut(each: Array) -> Array:
            start = (self.layer, number, *[0] * (each.ndim - 2))
            part: Array = lax.dynamic_slice(each, start, (1, 1, *each.shape[2:]))[0, 0]
            return part

        return _each(self.stack, cut)

    def expert_rows(self, number: Any, start: Any, count: int) -> Array:
        """Some rows of the matrix of one expert, which is not in groups."""
        assert not isinstance(self.stack, Grouped)
        at, shape = (self.layer, number, start, 0), (1, 1, count, self.stack.shape[-1])
        part: Array = lax.dynamic_slice(self.stack, at, shape)[0, 0]
        return part

    def slice_chunks(self, axis: int, width: int, start: int, stop: int) -> "Stacked":
        """Rows (``axis`` 0) or columns (1) ``start`` to ``stop`` of every chunk of ``width``, as a copy."""

        whole, part = self.whole(), 1 if axis else group_size_of(self.stack)

        def chunks(each: Array) -> Array:
            if axis == 0:
                cut = each.reshape(-1, width // part, *each.shape[1:])
                return lax.slice_in_dim(cut, start // part, stop // part, axis=1).reshape(1, -1, *each.shape[1:])
            cut = each.reshape(*each.shape[:-1], -1, width)
            return lax.slice_in_dim(cut, start, stop, axis=cut.ndim - 1).reshape(1, *each.shape[:-1], -1)

        return Stacked(whole.map(chunks) if isinstance(whole, Grouped) else chunks(whole), 0)


def _each(matrix: Weights, function: Callable[[Array], Array]) -> Weights:
    return matrix.map(function) if isinstance(matrix, Grouped) else function(matrix)


def only_layer(layers: LayerParameters) -> LayerParameters:
    """The parameters of a layer that has arrays of its own, a stack of one, its matrices' vectors in one dimension."""

    def own(matrix: Matrix | None, shape: tuple[int, ...]) -> Matrix | None:
        if matrix is None:
            return None
        scale, bias = (each if each is None else each.reshape(shape) for each in (matrix.scale, matrix.bias))
        return replace(matrix, values=Stacked(matrix.values, 0), scale=scale, bias=bias)

    def of(node: Any) -> Any:
        if isinstance(node, Matrix):
            if node.parts:
                return own(node, (-1, node.chunk_width))
            scale, bias = (each if each is None else each[0] for each in (node.scale, node.bias))
            return replace(node, values=Stacked(node.values, 0), scale=scale, bias=bias)
        if not isinstance(node, Projection):
            return node[0]
        width = node.inputs.chunk_width if node.inputs is not None else 0
        return Projection(own(node.inputs, (-1, width)), own(node.outputs, (-1,)))

    mine: LayerParameters = jax.tree.map(of, layers, is_leaf=lambda node: isinstance(node, (Matrix, Projection)))
    return mine


def scan_inputs(layers: LayerParameters) -> LayerParameters:
    """What the loop over layers slices: all but the matrices' values, which matmuls slice from the stack themselves."""
    return map_matrices(lambda matrix: replace(matrix, values=None), layers)


def layer_parameters(vectors: LayerParameters, layers: LayerParameters, number: Any) -> LayerParameters:
    """One layer's parameters: its ``vectors`` from the loop, its matrices from the stacks of ``layers``."""
    return map_matrices(lambda mine, all_: replace(mine, values=Stacked(all_.values, number)), vectors, layers)


def fetched(layers: LayerParameters, number: Any) -> LayerParameters:
    """Layer ``number`` of stacks in host memory, its matrices on the device as stacks of one."""

    def arrived(each: Array) -> Array:
        one = lax.dynamic_slice_in_dim(each, number, 1, axis=0)
        moved: Array = jax.device_put(one, jax.memory.Space.Device)
        return moved

    return map_matrices(lambda matrix: replace(matrix, values=jax.tree.map(arrived, matrix.values)), layers)


Layered = TypeVar("Layered", LayerParameters, ExpertParameters)


def map_matrices(function: Any, layers: Layered, *others: Layered) -> Layered:
    """``layers`` with ``function`` applied to every matrix (and to the matrices at the same place in ``others``)."""

    def of(node: Any, *same: Any) -> Any:
        return function(node, *same) if isinstance(node, Matrix) else node

    mapped: Layered = jax.tree.map(of, layers, *others, is_leaf=lambda node: isinstance(node, Matrix))
    return mapped

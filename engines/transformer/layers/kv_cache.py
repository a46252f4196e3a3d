"""The key/value cache: its arrays on a mesh, writing new tokens and reading them.

A quantized cache (``kv_dtype`` int8 or float8_e4m3) has, besides ``k`` and ``v``, a float32 scale for each token of
each head, ``k_scale`` and ``v_scale``. Values are quantized when they are written; attention applies the scales to the
scores and to the softmax weights, so that the cache is never dequantized to a copy.

Of latent attention (:mod:`layers.latent_attention`) ``k`` holds the latent vectors and ``v`` the keys that all heads
share, in one slot that no axes of heads split. Where attention is over the sequence, position p is held by chip p mod n
of the axes that split positions, in its place p // n.

A layer with a window caches the last ``window`` positions alone, position p in slot p mod window (:func:`window_of`).

The keys and values of a prefix shared by all sequences are stored once, under the same names after ``prefix_``:
[layers, 1, …], on every chip that attends with those heads. The other arrays then begin after the prefix.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from engines.core.dtypes import LARGEST
from engines.core.layer_kind import LayerKind
from engines.transformer.layers.host_cache import host_spec, on_host
from engines.transformer.layers.mask import Window
from engines.transformer.params.memory_layout import array_format, relayout
from engines.transformer.params.quantize import quantize, stored_dtype
from engines.transformer.partition.kv_heads import folds_slots, kv_slots
from engines.transformer.partition.plan import STAGE, Plan
from engines.transformer.partition.stacks import Stack

PREFIX: Final = "prefix_"
UNROLLED_ROWS: Final = 16
"""Up to this many rows are written one after another without a loop."""
Cache = dict[str, Array]
"""k and v: [layers, batch.attention, heads.rest, cache_len, dim]; their scales, where quantized, without ``dim``.
A cache in pages (:mod:`engines.transformer.layers.ragged`) has pages for sequences and their size for ``cache_len``.

Where slots are folded into the batch (:func:`engines.transformer.partition.kv_heads.folds_slots`) they are
[layers, batch.attention · heads.rest, 1, cache_len, dim], ordered by chip.
"""


Caches = tuple[Cache, ...]
"""A cache for each of :attr:`engines.transformer.partition.plan.Plan.stacks`."""


class Cached(NamedTuple):
    """One layer's keys or values [batch, slots, limit, dim] and, where quantized, their scale [batch, slots, limit].

    ``more`` are further dimensions of the same keys, with a scale of their own.
    """

    values: Array
    scale: Array | None
    more: "Cached | None" = None


def cache_spec(plan: Plan) -> P:
    """The PartitionSpec of k and v: the batch over attention's batch axes, slots over the other axes."""
    heads = plan.kv_axes if plan.partitioner == "gspmd" else plan.axes.head
    stage = STAGE if plan.stages > 1 else None
    if folds_slots(plan):
        return P(stage, plan.axes.sequence + heads or None, None, plan.axes.positions or None, None)
    if plan.model.attention.is_latent:
        heads = ()
    return P(stage, plan.axes.sequence or None, heads or None, plan.axes.positions or None, None)


def window_of(plan: Plan, kind: LayerKind) -> Window | None:
    """The window of a layer of that kind; None where no text of the plan is longer."""
    if kind.window is None or kind.window >= plan.cache_len:
        return None
    return Window(kind.window, plan.model.window_kind == "chunked", plan.prefill.prefix)


def held_positions(plan: Plan, kind: LayerKind) -> int:
    """Positions that a chip's cache of a layer of that kind holds, besides a shared prefix.

    Where chips share a sequence's positions, those of a window are one more on each: one that is not there yet may be
    written, behind the last of a prompt.
    """
    own, shared = plan.cache_len - plan.prefill.prefix, plan.axes.size(plan.axes.positions)
    if plan.ragged:
        # Sequences of different lengths keep all positions: a padded prompt's last ones are not a sequence's own.
        return own if plan.pages is None else plan.pages[1]
    if shared == 1:
        return own if kind.window is None else min(kind.window, own)
    return plan.cache_positions if kind.window is None else min(-(-kind.window // shared) + 1, plan.cache_positions)


def cache_specs(plan: Plan) -> tuple[dict[str, P], ...]:
    """The PartitionSpec of every array, in the structure of :data:`Caches`."""
    specs = {name: host_spec(each) if plan.offloads_kv else each for name, each in _specs(plan).items()}
    return (specs,) * len(plan.stacks)


def _specs(plan: Plan) -> dict[str, P]:
    """Name → PartitionSpec of every array of one :data:`Cache`."""
    spec = cache_spec(plan)
    scales = {"k_scale": P(*spec[:-1]), "v_scale": P(*spec[:-1])} if plan.kv_dtype in LARGEST else {}
    specs = {"k": spec, "v": spec, **scales}
    if plan.prefill.prefix:
        specs |= {f"{PREFIX}{name}": P(None, None, *each[2:]) for name, each in specs.items()}
    return specs


def abstract_cache(plan: Plan, mesh: Mesh) -> tuple[dict[str, Any], ...]:
    """Shapes, dtypes and shardings of the cache, in the structure of :data:`Caches`."""
    return tuple(_abstract(plan, mesh, stack) for stack in plan.stacks)


def _abstract(plan: Plan, mesh: Mesh, stack: Stack) -> dict[str, Any]:
    """:func:`abstract_cache` of one stack."""
    slots = len(kv_slots(plan)[0][0]) * plan.axes.size(plan.axes.head)
    if plan.partitioner == "gspmd":
        slots = plan.padded.kv_heads
    if plan.model.attention.is_latent:
        slots = 1
    model, held = plan.model, held_positions(plan, stack.kind) * plan.axes.size(plan.axes.positions)
    prefix = plan.prefill.prefix
    described = {}
    for name, spec in _specs(plan).items():
        scale = name.endswith("_scale")
        shared = prefix if stack.kind.window is None else min(stack.kind.window, prefix)
        own = plan.batch_size if plan.pages is None else plan.pages[0]
        batch, length = (1, shared) if name.startswith(PREFIX) else (own, held)
        rows = (batch * slots, 1) if folds_slots(plan) else (batch, slots)
        shape = (len(stack.numbers) * plan.micro_batches, *rows, length, _dim(plan, name))
        # A folded cache of multihead attention stores the heads of one position side by side, over all sequences: a
        # vector unit reads them so. Queries that share a head are a matmul's rows, which reads position after position.
        order: Sequence[int] = range(len(shape) - scale)
        if folds_slots(plan) and not scale and model.num_heads == model.num_kv_heads:
            order = (0, 3, 2, 1, 4)
        elif scale and plan.unrolled and slots == plan.axes.size(plan.axes.head):
            # A chip's only slot: sequences and positions are the tiles, as attention reads them.
            order = (0, 2, 1, 3)
        described[name] = jax.ShapeDtypeStruct(
            shape[:-1] if scale else shape,
            np.dtype(np.float32) if scale else stored_dtype(plan.kv_dtype),
            sharding=array_format(mesh, spec, order),
        )
        if plan.offloads_kv:
            described[name] = on_host(described[name], mesh, spec)
    return described


def _dim(plan: Plan, name: str) -> int:
    """Elements of an entry of the array ``name`` of the cache."""
    key, value = plan.cached_dims
    return key if name.removeprefix(PREFIX).startswith("k") else value


def make_cache(plan: Plan, mesh: Mesh) -> Caches:
    """An empty cache on the mesh's devices."""
    empty: Caches = empty_arrays(abstract_cache(plan, mesh))
    return empty


def empty_arrays(described: Any) -> Any:
    """Zeros of the shapes and shardings of a pytree, of all of a cache or of a part."""

    def made(each: jax.ShapeDtypeStruct) -> Array:
        # Never under jit with a constant: two equal constants would be one buffer, and a cache is donated.
        local = np.zeros(each.sharding.shard_shape(each.shape), each.dtype)
        array = jax.make_array_from_callback(each.shape, each.sharding, partial(_same, local))
        return relayout(array, each.format)

    return jax.tree.map(made, described)


def keys_and_values(parts: dict[str, Array]) -> tuple[Cached, Cached]:
    """The result of :func:`quantized_kv` as (keys, values)."""
    return Cached(parts["k"], parts.get("k_scale")), Cached(parts["v"], parts.get("v_scale"))


def quantized_kv(plan: Plan, k: Array, v: Array) -> dict[str, Array]:
    """k and v [batch, time, slots, dim] in the cache's format, by its names: [batch, slots, time, …]."""
    if plan.kv_dtype not in LARGEST:
        by_name = zip("kv", (k, v), strict=True)
        return {name: new.transpose(0, 2, 1, 3).astype(stored_dtype(plan.kv_dtype)) for name, new in by_name}
    if k.shape != v.shape:
        return _quantized_apart(plan, k, v)
    both = jnp.stack([k, v]).transpose(0, 1, 3, 2, 4)
    # If quantization were fused with the write, a TPU's cache would get a layout that every read has to copy.
    blocks, scales = lax.optimization_barrier(quantize(both, plan.kv_dtype))
    parts = {name: blocks[each] for each, name in enumerate("kv")}
    return parts | {f"{name}_scale": scales[each, ..., 0] for each, name in enumerate("kv")}


def _quantized_apart(plan: Plan, k: Array, v: Array) -> dict[str, Array]:
    """:func:`quantized_kv` of k and v that differ in size."""
    parts: dict[str, Array] = {}
    for name, each in (("k", k), ("v", v)):
        block, scale = lax.optimization_barrier(quantize(each.transpose(0, 2, 1, 3), plan.kv_dtype))
        parts |= {name: block, f"{name}_scale": scale[..., 0]}
    return parts


def write_parts(cache: Cache, parts: dict[str, Array], layer: Any, position: Any) -> Cache:
    """The cache with ``parts`` of one layer (see :func:`quantized_kv`) written from ``position`` on."""
    written = dict(cache)
    for name, part in parts.items():
        each = part if cache[name].shape[2] == part.shape[1] else part.reshape(-1, 1, *part.shape[2:])
        at = (layer, 0, 0, position, 0)[: each.ndim + 1]
        written[name] = lax.dynamic_update_slice(cache[name], each[None], at)
    return written


def write_each(cache: Cache, parts: dict[str, Array], layer: Any, rows: Array, positions: Array) -> Cache:
    """The cache with one token of each sequence in ``parts`` written to its own row at its own position [rows].

    One by one, in place: of a scatter into a stack of layers a TPU copies all of the stack.
    """

    def one(number: Any, written: Cache) -> Cache:
        put = dict(written)
        for name, part in parts.items():
            each = part if cache[name].shape[2] == part.shape[1] else part.reshape(-1, 1, *part.shape[2:])
            token = lax.dynamic_slice_in_dim(each, number, 1)
            at = (layer, rows[number], 0, positions[number], 0)[: each.ndim + 1]
            put[name] = lax.dynamic_update_slice(put[name], token[None], at)
        return put

    if rows.shape[0] > UNROLLED_ROWS:
        looped: Cache = lax.fori_loop(0, rows.shape[0], one, dict(cache))
        return looped
    for number in range(rows.shape[0]):
        cache = one(number, cache)
    return cache


def write_rolled(cache: Cache, parts: dict[str, Array], layer: Any, position: Any, length: int) -> Cache:
    """The cache with ``parts`` of one layer, which stand from ``position`` on, in slot (position mod ``length``).

    Of more than ``length`` new tokens the last are kept.
    """
    time = parts["k"].shape[2]
    if time == 1:
        return write_parts(cache, parts, layer, position % length)
    kept = {name: each[:, :, max(0, time - length) :] for name, each in parts.items()}
    first = position + max(0, time - length)
    count, filled = min(time, length), {}
    for name, each in kept.items():
        grown = jnp.pad(each, [(0, length - count) if axis == 2 else (0, 0) for axis in range(each.ndim)])
        filled[name] = jnp.roll(grown, first % length, axis=2)
    if count < length:
        # The tokens may pass the last slot and go on in the first: all slots are written, those of others as they were.
        new = jnp.roll(jnp.arange(length) < count, first % length)
        for name, each in filled.items():
            old = lax.dynamic_index_in_dim(cache[name], layer, keepdims=False).reshape(each.shape)
            filled[name] = jnp.where(new.reshape(-1, *[1] * (each.ndim - 3)), each, old)
    return write_parts(cache, filled, layer, 0)


def read(cache: Cache, name: str, layer: Any, limit: int) -> Cached:
    """One layer's keys (``name`` k) or values (v) of the first ``limit`` positions, in the cache's format."""

    def of(each: str) -> Array:
        whole: Array = lax.dynamic_index_in_dim(cache[each], layer, keepdims=False)
        return whole[:, :, :limit]

    scale = f"{name}_scale"
    return Cached(of(name), of(scale) if scale in cache else None)


def behind(held: Cached, new: Cached, slots: int) -> Cached:
    """Keys or values of the cache, and behind them new ones, whose slots are folded into the batch as the cache's."""

    def both(old: Array, each: Array) -> Array:
        folded = each.reshape(-1, 1, *each.shape[2:]) if slots > 1 else each
        return jnp.concatenate([old, folded.astype(old.dtype)], axis=2)

    joined: Cached = jax.tree.map(both, held, new)
    return joined


def split_slots(q: Array, slots: int) -> Array:
    """[batch, time, heads, dim] → [batch·slots, time, heads/slots, dim]: each folded slot as a sequence."""
    batch, time, _, dim = q.shape
    return q.reshape(batch, time, slots, -1, dim).swapaxes(1, 2).reshape(batch * slots, time, -1, dim)


def merge_slots(out: Array, slots: int) -> Array:
    """The inverse of :func:`split_slots`."""
    _, time, group, dim = out.shape
    return out.reshape(-1, slots, time, group, dim).swapaxes(1, 2).reshape(-1, time, slots * group, dim)


def _same(local: NDArray[Any], _index: Any) -> NDArray[Any]:
    return local

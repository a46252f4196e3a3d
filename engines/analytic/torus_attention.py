"""Attention on a TPU torus: over heads, the batch or the positions of a sequence, and what each of them sends.

Symbols as in :mod:`engines.analytic.tpu_torus` and :mod:`engines.analytic.attention`.
"""

from dataclasses import dataclass, field

import numpy as np

from engines.analytic.attention import cached_width, query_columns, query_width, up_params, value_width
from engines.analytic.grid import Bools, Floats, Grid, Ints
from engines.analytic.torus_links import LayerTransfers, all_to_all_s, exchange, gathering, hops, nothing, size_of
from engines.core.layout import LAYOUTS
from engines.core.volume import Exchange, sequence_prompt, sequence_step

STATISTIC_BYTES = 4.0
"""Partial results that are merged are in float32."""


def padded_heads(grid: Grid) -> Floats:
    """Query heads as run: padded so that the chips, or the next power of two of heads if fewer, get equal parts.

    PaLM 540B's 48 heads are run as 64 on 64 chips (Pope et al. 2022, section 4).
    """
    shards = head_shards(grid)
    return np.ceil(grid.heads / shards) * shards


def head_shards(grid: Grid) -> Floats:
    """Chips over which heads split: all of them up to the next power of two of heads."""
    return np.asarray(np.minimum(size_of(grid, "xyz"), grid.max_head_shards))


def run_kv_heads(grid: Grid) -> Floats:
    """Key/value heads as run: padded as query heads are where each has its own."""
    return np.where(grid.kv_heads == grid.heads, padded_heads(grid), grid.kv_heads)


def attention_weights(grid: Grid) -> Floats:
    """Elements of one layer's attention matrices as run: 2·E·D·(H + K), or those to and from latent vectors."""
    heads = padded_heads(grid)
    by_head = 2 * grid.d_model * grid.head_dim * (heads + run_kv_heads(grid))
    if not np.any(grid.latent):
        return by_head
    down = query_columns(grid, heads) + cached_width(grid)
    latent = grid.d_model * (down + heads * grid.value_dim) + up_params(grid, heads)
    return np.where(grid.latent, latent, by_head)


def attention_on_chip(grid: Grid, layout: str) -> Floats:
    """Elements of one layer's attention matrices on a chip: 1/n, but k|v on every chip that has the same rows of E.

    The k and v projections are cut over at most K heads: [E, 2·K·D] whole in ws_1d where K = 1, [E.x, 2·K·D] in the
    layouts that keep weights in two dimensions. Those to latent vectors are cut by columns, over all chips.
    """
    chips = size_of(grid, "xyz")
    key_value = np.where(grid.latent, 0.0, _key_value_weights(grid))
    return (attention_weights(grid) - key_value) / chips + np.where(grid.latent, 0.0, _copied(grid, layout))


def key_value_on_chip(grid: Grid, layout: str) -> Floats:
    """Of :func:`attention_on_chip` those that make what is cached: k|v, or latent vectors."""
    latent = grid.d_model * cached_width(grid) / size_of(grid, "xyz")
    return np.where(grid.latent, latent, _copied(grid, layout))


def _key_value_weights(grid: Grid) -> Floats:
    return 2 * grid.d_model * grid.head_dim * run_kv_heads(grid)


def _copied(grid: Grid, layout: str) -> Floats:
    rows = size_of(grid, LAYOUTS[layout].stored_embed)
    return _key_value_weights(grid) / rows / np.minimum(size_of(grid, "xyz") / rows, run_kv_heads(grid))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """How attention is split: number of chips over which sequences, heads and positions are split.

    ``head_axes`` indexes HEAD_AXES: the axes that split heads where the others split positions.
    """

    batch: Floats
    heads: Floats
    moved: Floats
    """Chips among which an all-to-all exchanges q, k, v and the output; 1 where none is needed."""
    possible: Bools
    positions: Floats = field(default_factory=lambda: np.ones(1))
    head_axes: Ints | None = None

    def kv_elements(self, grid: Grid, tokens: Floats) -> Floats:
        """Elements of one layer's cache on a chip for ``tokens`` [B·context]: 2·D·K, copied where K < shards.

        Latent vectors have no heads: every chip that attends to a sequence's positions has them whole.
        """
        local = np.maximum(np.ceil(run_kv_heads(grid) / self.heads), 1.0)
        width = np.where(grid.latent, cached_width(grid), 2 * grid.head_dim * local)
        return width * tokens / (self.batch * self.positions)


HEAD_AXES = ("", "x", "y", "z", "xy", "xz", "yz", "xyz")
"""Axes that may split heads where the others split positions."""


def _divides(shards: Floats, batch: Floats) -> Bools:
    # np.remainder of floats would take longer than everything else here.
    parts = batch / shards
    return np.asarray(parts == np.floor(parts))


def attention_shards(grid: Grid, layout: str, attention: str) -> Shards:
    """Attention under ``layout``, split over ``heads``, ``batch`` or ``sequence``.

    Heads: a gathered layout has the batch split over its axes already and heads over the others. Batch: the largest
    of xyz, yz, z whose shards divide the batch, heads over the axes that are left. Sequence: heads over as many axes as
    leave every chip a whole key/value head, positions over the others; the batch stays whole.
    """
    chips = size_of(grid, "xyz")
    gathered = size_of(grid, LAYOUTS[layout].gathered)
    fits = _divides(gathered, grid.batch)
    most = head_shards(grid)
    if attention == "sequence":
        return _over_positions(grid, gathered)
    if attention == "heads":
        return Shards(
            batch=gathered, heads=np.minimum(chips / gathered, most), moved=np.ones(1), possible=fits & (chips > 0)
        )
    shards = np.ones(1)
    for axes in ("z", "yz", "xyz"):
        size = size_of(grid, axes)
        shards = np.where((size > 1) & _divides(size, grid.batch), size, shards)
    shards = np.maximum(shards, gathered)
    return Shards(
        batch=shards,
        heads=np.minimum(chips / shards, most),
        moved=np.where(shards > gathered, shards, 1.0),
        possible=fits & (shards > 1),
    )


def _over_positions(grid: Grid, gathered: Floats) -> Shards:
    chips, kv_heads = size_of(grid, "xyz"), np.where(grid.latent, 1.0, run_kv_heads(grid))
    most, chosen = np.zeros(1), np.zeros(1, dtype=np.int64)
    for index, axes in enumerate(HEAD_AXES):
        size = size_of(grid, axes)
        better = _divides(size, kv_heads) & (size > most)
        most, chosen = np.where(better, size, most), np.where(better, index, chosen)
    positions = chips / most
    return Shards(
        batch=np.ones(1),
        heads=most,
        moved=np.ones(1),
        possible=np.asarray((gathered == 1) & (positions > 1)),
        positions=positions,
        head_axes=np.asarray(chosen),
    )


def attention_transfers(grid: Grid, layout: str, shards: Shards, length: Floats, absorbed: Bools) -> LayerTransfers:
    """What attention sends of ``length`` new tokens a sequence, beside its projections.

    Over the batch, all-to-alls bring q, k, v of the new tokens to the cache and the result back (section 3.3): a chip
    holds T·(H·D)/n of q and as much of the result, and T·2·K·D/n of k and v. Latent vectors and what queries come from
    are gathered over the columns' axes, and k and v of no head are sent. Over positions: :func:`_merged`.
    """
    tokens, chips = grid.batch * length, size_of(grid, "xyz")
    found = LayerTransfers(transfer_s=np.zeros(1), start_s=np.zeros(1))
    into, out = padded_heads(grid) * query_width(grid, absorbed), padded_heads(grid) * value_width(grid, absorbed)
    moved = shards.moved > 1
    if np.any(moved):
        columns = into + out + np.where(grid.latent, 0.0, 2 * grid.kv_heads * grid.head_dim)
        found = LayerTransfers(
            transfer_s=np.where(moved, all_to_all_s(grid, "xyz", tokens * columns / chips * grid.act_bytes), 0.0),
            start_s=np.where(moved, 2 * (grid.collective_s + grid.hop_s * hops(grid, "xyz")), 0.0),
        )
    if np.any(grid.latent):
        axes = "".join(axis for axis in "xyz" if axis not in LAYOUTS[layout].gathered)
        down = np.where(grid.q_latent > 0, grid.q_latent, 0.0) + cached_width(grid)
        local = tokens / size_of(grid, LAYOUTS[layout].gathered) * down * grid.act_bytes
        expanded = grid.latent & ~absorbed & moved
        up = np.where(expanded, up_params(grid, padded_heads(grid)) / chips * shards.moved * grid.weight_bytes, 0.0)
        for sent, needed in ((gathering(grid, axes, local), grid.latent), (gathering(grid, "xyz", up), expanded)):
            found = found + sent.where(needed, nothing())
    if shards.head_axes is not None:
        found = found + _merged(grid, shards, length, absorbed)
    return found


def _merged(grid: Grid, shards: Shards, length: Floats, absorbed: Bools) -> LayerTransfers:
    """What attention over positions sends: :func:`engines.core.volume.sequence_step`, or ``sequence_prompt``.

    Decode gathers queries over the chips that share positions and merges the weighted sums of their parts (statistics
    in float32). A prompt passes its keys and values around a ring (Liu et al. 2023, arXiv 2310.01889): every chip
    receives all others' once, as in an all-gather.
    """
    found, heads = nothing(), padded_heads(grid) / shards.heads
    into, out = heads * query_width(grid, absorbed), heads * value_width(grid, absorbed)
    held = np.where(grid.latent, cached_width(grid), 2 * grid.head_dim * run_kv_heads(grid) / shards.heads)
    # Latent vectors are whole on every chip before attention, so that none of them is sent again.
    sizes = {"tokens": grid.batch * length, "query": into, "new": np.where(grid.latent, 0.0, held), "value": out}
    for index, axes in enumerate(HEAD_AXES):
        mine = np.asarray(shards.head_axes == index)
        if not np.any(mine):
            continue
        over = "".join(axis for axis in "xyz" if axis not in axes)
        step = sequence_step(chips=shards.positions, heads=heads, **sizes)
        prompt = sequence_prompt(chips=shards.positions, held=held, **sizes)
        times = [_time_of(grid, over, list(each)) for each in (step, prompt)]
        found = times[0].where(length <= 1, times[1]).where(mine, found)
    return found


def _time_of(grid: Grid, axes: str, exchanges: list[Exchange]) -> LayerTransfers:
    found = nothing()
    for each in exchanges:
        size = each.elements * (STATISTIC_BYTES if each.of == "statistics" else grid.act_bytes)
        if each.kind == "all-to-all":
            found = found + exchange(grid, axes, size)
        elif each.kind == "collective-permute":
            found = found + gathering(grid, axes, size * (each.times + 1))
        else:
            found = found + gathering(grid, axes, size)
    return found


def made_again(grid: Grid, shards: Shards, length: Floats, keys: Floats, absorbed: Bools) -> Floats:
    """Products of a chip that make keys and values of the cache's latent vectors anew, where they are not absorbed."""
    made = padded_heads(grid) * grid.kv_latent * (grid.head_dim - grid.rotated + grid.value_dim)
    elsewhere = shards.batch * shards.heads * shards.positions
    return np.where(grid.latent & ~absorbed, grid.batch * np.maximum(keys - length, 0.0) * made / elsewhere, 0.0)


def expanded_elements(grid: Grid, shards: Shards, keys: Floats, absorbed: Bools) -> Floats:
    """Elements of keys and values of every head that a chip makes of latent vectors, where they are not absorbed."""
    made = padded_heads(grid) * (grid.head_dim + grid.value_dim)
    elsewhere = shards.batch * shards.heads * shards.positions
    return np.where(grid.latent & ~absorbed, grid.batch * keys * made / elsewhere, 0.0)


def key_value_columns(grid: Grid, across: Floats) -> Floats:
    """Columns of keys and values that a chip's projection makes: one head at least, or its part of the latents'."""
    return np.where(
        grid.latent,
        cached_width(grid) / across,
        2 * grid.head_dim * np.maximum(np.ceil(grid.kv_heads / across), 1.0),
    )

"""TPU tori: the engine's forms come to the paper's where their refinements are off, and obey the laws of links."""

from dataclasses import replace

import numpy as np
import pytest
from builders.points import point
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.analytic import paper_forms, torus_attention, torus_links, tpu_torus
from engines.analytic.grid import Grid, grid_of

GATHERED = {"wg_x": 4, "wg_xy": 16, "wg_xyz": 64}


def feed_forward() -> Grid:
    """One plain feed-forward (two matrices, no attention) of E = 16384 and F = 65536 on 4×4×4 TPU v4."""
    of = point(
        model="palm-540b",
        hw="tpu-v4",
        engine="analytic",
        phase="decode",
        num_chips=64,
        batch_size=1,
        input_len=1,
        output_len=1,
    )
    return replace(
        grid_of([of]),
        head_dim=np.zeros(1),
        ffn_params=np.full(1, 2.0 * 16384 * 65536),
        d_model=np.full(1, 16384.0),
        ffn_inputs=np.full(1, 65536.0),
        ffn_hidden=np.full(1, 65536.0),
    )


def volume(grid: Grid, layout: str, tokens: float) -> float:
    return sum(
        float((each.count * each.size_bytes)[0])
        for each in tpu_torus.layer_collectives(grid, layout, np.full(1, tokens))
    )


@settings(max_examples=25)
@given(tokens=st.integers(1, 2**20))
def test_volumes_are_the_papers(tokens):
    grid = feed_forward()
    assert volume(grid, "ws_1d", tokens) == pytest.approx(2 * paper_forms.ws_1d_elements(tokens, 16384))
    assert volume(grid, "ws_2d", tokens) == pytest.approx(2 * paper_forms.ws_2d_elements(tokens, 16384, 65536, 4, 16))
    for layout, shards in GATHERED.items():
        expected = 2 * paper_forms.wg_elements(tokens, 16384, 65536, 64, shards)
        assert volume(grid, layout, tokens) == pytest.approx(expected)


def test_ws_1d_takes_the_papers_time():
    # 2·T·E·2 bytes over all six links at full rate, times (k − 1)/k that the paper takes as 1; starts left out.
    grid = replace(feed_forward(), link_efficiency=np.ones(1), axis_gain=np.ones(1))
    seconds = tpu_torus.layer_transfers(grid, "ws_1d", np.full(1, 512.0)).transfer_s[0]
    assert seconds == pytest.approx(2 * 512 * 16384 * 2 / 270e9 * 63 / 64)


def test_int8_weights_halve_what_gathering_weights_moves():
    wide = feed_forward()
    narrow = replace(wide, weight_bytes=np.ones(1))
    tokens = 2**14
    saved = volume(wide, "wg_xyz", tokens) - volume(narrow, "wg_xyz", tokens)
    assert saved == pytest.approx(2 * 16384 * 65536)
    assert volume(wide, "ws_2d", tokens) == volume(narrow, "ws_2d", tokens)


def test_bandwidth_counts_links(make_point):
    ring = replace(grid_of([make_point()]), axis_gain=np.ones(1), link_efficiency=np.ones(1))
    assert [torus_links.bandwidth(ring, axes)[0] for axes in ("x", "yz", "xyz")] == [90e9, 180e9, 270e9]
    one_by_one = replace(ring, axis_gain=np.zeros(1))
    assert torus_links.bandwidth(one_by_one, "xyz")[0] == 90e9
    # 2×2×2 is too short to close into rings: a chip has one neighbour along an axis.
    line = replace(
        grid_of([make_point(num_chips=8, model="palm-8b")]), axis_gain=np.ones(1), link_efficiency=np.ones(1)
    )
    assert torus_links.bandwidth(line, "xyz")[0] == 3 * 45e9


def test_nothing_moves_on_one_chip(make_point):
    grid = grid_of([make_point(num_chips=1, model="palm-8b", batch_size=1)])
    cost = tpu_torus.forward(grid, "ws_1d", "heads", np.ones(1), np.full(1, 2048.0))
    assert cost.communication_s[0] == 0
    assert cost.latency_s[0] > 0


def test_hops_along_rings_and_lines(make_point):
    assert torus_links.hops(grid_of([make_point()]), "xyz")[0] == 6
    assert torus_links.hops(grid_of([make_point(num_chips=16, mesh_shape=(2, 2, 4))]), "xyz")[0] == 1 + 1 + 2


def test_all_to_all_by_hand(make_point):
    # A ring of 4: a byte goes one hop on average over two links: size/8·4 of a link's time.
    grid = replace(grid_of([make_point()]), link_efficiency=np.ones(1))
    assert torus_links.all_to_all_s(grid, "x", np.full(1, 90e9))[0] == pytest.approx(1.0)
    # Axes work side by side, so three equal ones take no longer.
    assert torus_links.all_to_all_s(grid, "xyz", np.full(1, 90e9))[0] == pytest.approx(1.0)


def test_heads_are_padded_as_the_paper_ran_them(make_point):
    grid = grid_of([make_point()])
    assert torus_attention.padded_heads(grid)[0] == 64
    model = make_point().model
    extra = 118 * (tpu_torus.layer_weights(grid)[0] - model.layer_matmul_params(model.layer_kinds[0]))
    assert extra == pytest.approx(18e9, rel=0.02)
    assert torus_attention.padded_heads(grid_of([make_point(num_chips=16)]))[0] == 48


def test_multiquery_keys_are_copied_over_heads_and_split_over_batch(make_point):
    grid = grid_of([make_point()])
    tokens = np.full(1, 64.0 * 2048)
    over_heads = torus_attention.attention_shards(grid, "ws_2d", "heads").kv_elements(grid, tokens)[0]
    over_batch = torus_attention.attention_shards(grid, "ws_2d", "batch").kv_elements(grid, tokens)[0]
    assert over_heads == 2 * 256 * 64 * 2048
    assert over_heads == 64 * over_batch


def test_batch_attention_takes_the_most_axes_that_divide(make_point):
    shards = [
        torus_attention.attention_shards(grid_of([make_point(batch_size=size)]), "ws_2d", "batch")
        for size in (64, 16, 4)
    ]
    assert [float(each.batch[0]) for each in shards] == [64, 16, 4]
    none = torus_attention.attention_shards(grid_of([make_point(batch_size=2)]), "ws_2d", "batch")
    assert not none.possible[0]


def test_a_serial_block_costs_about_a_seventh_more(make_point):
    # Pope et al. 2022, section 4.3: 14% more per decode step at batch 512; no row of it is fitted.
    keys = {"batch_size": 512, "ffn_layout": "ws_2d", "attn_sharding": "batch", "collectives": "throughput"}
    grids = [grid_of([make_point(model=model, **keys)]) for model in ("palm-540b-serial", "palm-540b")]
    serial, parallel = (
        tpu_torus.forward(grid, "ws_2d", "batch", np.ones(1), np.full(1, 2048.0)).latency_s[0] for grid in grids
    )
    assert 1.10 < serial / parallel < 1.20

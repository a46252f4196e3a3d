"""The paper's closed forms: Table 1, Figure 3, optima and crossovers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.sweep.catalog import load_chip, load_model
from engines.analytic import memory, paper_forms
from engines.analytic.grid import grid_of
from engines.published.table import read_table

powers = st.integers(0, 12).map(lambda power: 2**power)


@pytest.mark.parametrize("row", read_table("paper_table1.csv"), ids=lambda row: f"{row['variant']} {row['batch_size']}")
def test_table_1_within_two_percent(row):
    multihead = row["variant"].startswith("multihead")
    model = load_model("palm-540b-multihead" if multihead else "palm-540b")
    context = paper_forms.max_context(
        model,
        load_chip(row["hw"]),
        num_chips=int(row["num_chips"]),
        batch_size=int(row["batch_size"]),
        attn_sharding="batch" if row["variant"].endswith("batch") else "heads",
        memory_fraction=float(row["kv_memory_fraction"]),
    )
    assert context == pytest.approx(float(row["max_context_len"]), rel=0.02)


@pytest.mark.parametrize(
    ("model", "sharding"), [("palm-540b-multihead", "heads"), ("palm-540b", "heads"), ("palm-540b", "batch")]
)
def test_table_1_and_the_engine_count_the_same_cache(make_point, model, sharding):
    # At the longest context of Table 1 the engine's cache takes 30% of the HBM.
    chip = load_chip("tpu-v4")
    context = paper_forms.max_context(load_model(model), chip, num_chips=64, batch_size=128, attn_sharding=sharding)
    point = make_point(model=model, batch_size=128, input_len=int(context), output_len=1)
    grid = grid_of([point])
    cache = memory.on_torus(grid, "ws_2d", sharding, np.ones(1)).memory.kv_cache_bytes[0]
    assert cache == pytest.approx(0.3 * 34359738368, rel=0.005)


def test_volumes_by_hand():
    # T=2, E=3, F=12, n=4 as 2×2: 2·2·3; 2·2·(3/2 + 12/2); 2·3·12·2/4 + 2·2·3/2.
    assert paper_forms.ws_1d_elements(2, 3) == 12
    assert paper_forms.ws_2d_elements(2, 3, 12, x=2, yz=2) == 30
    assert paper_forms.wg_elements(2, 3, 12, chips=4, gathered=2) == 42


@given(tokens=powers, width=powers, chips=powers)
def test_ws_2d_with_four_times_as_wide_a_hidden_layer(tokens, width, chips):
    # The paper's own simplification: 8·T·E/sqrt(n).
    least = paper_forms.least_ws_2d_elements(tokens, width, 4 * width, chips)
    assert least == pytest.approx(8 * tokens * width / np.sqrt(chips))


@given(d_model=powers, ratio=st.integers(1, 8), chips=powers, other=st.floats(0.01, 100))
def test_no_other_x_beats_the_best(d_model, ratio, chips, other):
    d_ff = d_model * ratio
    best = paper_forms.best_x(chips, d_model, d_ff)
    least = paper_forms.ws_2d_elements(1, d_model, d_ff, best, chips / best)
    assert least == pytest.approx(paper_forms.least_ws_2d_elements(1, d_model, d_ff, chips))
    assert paper_forms.ws_2d_elements(1, d_model, d_ff, best * other, chips / best / other) >= least * (1 - 1e-12)


@given(tokens=powers, d_model=powers, d_ff=powers, chips=powers, other=st.floats(0.01, 100))
def test_no_other_number_of_gathered_chips_beats_the_best(tokens, d_model, d_ff, chips, other):
    best = paper_forms.best_gathered(tokens, d_ff, chips)
    least = paper_forms.wg_elements(tokens, d_model, d_ff, chips, best)
    assert least == pytest.approx(paper_forms.least_wg_elements(tokens, d_model, d_ff, chips))
    assert paper_forms.wg_elements(tokens, d_model, d_ff, chips, best * other) >= least * (1 - 1e-12)


def test_two_dimensions_pay_from_sixteen_chips():
    assert paper_forms.chips_1d_to_2d(1, 4) == 16
    one = paper_forms.ws_1d_elements(1, 1024)
    assert paper_forms.least_ws_2d_elements(1, 1024, 4096, 16) == pytest.approx(one)
    assert (
        paper_forms.least_ws_2d_elements(1, 1024, 4096, 17) < one < paper_forms.least_ws_2d_elements(1, 1024, 4096, 15)
    )


def test_figure_3_curves_cross_where_the_closed_forms_do():
    tokens = np.geomspace(1e3, 1e7, 20001)
    curves = paper_forms.figure_3(tokens).elements
    # X=Y=Z=4, E=16384, F=65536: by hand E·F·N/n / (E/X + F/(YZ) − E/N), then F·N₁·N₂/n.
    expected = {
        ("ws_2d", "wg_x"): 16384 * 65536 * 4 / 64 / (4096 + 4096 - 4096),
        ("wg_x", "wg_xy"): 65536 * 4 * 16 / 64,
        ("wg_xy", "wg_xyz"): 65536 * 16 * 64 / 64,
    }
    assert expected == {("ws_2d", "wg_x"): 16384, ("wg_x", "wg_xy"): 65536, ("wg_xy", "wg_xyz"): 1048576}
    for (before, after), at in expected.items():
        ahead = curves[after] < curves[before]
        assert tokens[np.argmax(ahead)] == pytest.approx(at, rel=1e-3)
    assert paper_forms.tokens_ws_to_wg(16384, 65536, 4, 16, 4) == 16384
    assert paper_forms.tokens_wg_to_wg(65536, 64, 16, 64) == 1048576


def test_figure_3_layouts_win_in_order_of_batch():
    curves = paper_forms.figure_3(np.array([1e3, 3e4, 3e5, 3e6])).elements
    names = list(curves)
    winners = [names[index] for index in np.argmin(np.stack(list(curves.values())), axis=0)]
    assert winners == ["ws_2d", "wg_x", "wg_xy", "wg_xyz"]


def test_no_crossing_where_stationary_grows_no_faster():
    assert paper_forms.tokens_ws_to_wg(4, 4, x=4, yz=4, gathered=1) == float("inf")


@given(mesh=st.tuples(*[st.integers(1, 16)] * 3), widths=st.tuples(powers, powers))
def test_at_a_crossing_both_layouts_send_the_same(mesh, widths):
    d_model, d_ff = (64 * width for width in widths)
    layouts = ("ws_1d", "ws_2d", *paper_forms.gathered_chips(mesh))
    for before in layouts:
        for after in layouts:
            tokens = paper_forms.crossing_tokens(before, after, d_model, d_ff, mesh)
            if tokens is None:
                assert not (before.startswith("wg") and after.startswith("wg"))
                continue
            volumes = [
                float(paper_forms.layout_elements(each, tokens, d_model, d_ff, mesh)) for each in (before, after)
            ]
            assert volumes[0] == pytest.approx(volumes[1])

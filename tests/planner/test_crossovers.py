"""Crossovers lie where the curves cross, and near the paper's closed forms where those apply."""

from dataclasses import replace

import numpy as np
import pytest
from builders.workloads import workload_of

from bench.planner.crossovers import chip_crossover, crossovers, layout_seconds, token_crossovers
from bench.planner.search import search


@pytest.fixture(scope="module")
def plan():
    asked = {"model": "palm-540b", "num_chips": 64, "batch_size": 512, "phase": "prefill", "weight_dtype": "bfloat16"}
    return search(workload_of(**asked)).chosen


def test_before_and_after_a_crossover_the_winner_changes(plan):
    found = token_crossovers(plan.point)
    assert [(each.before, each.after) for each in found] == [("ws_2d", "wg_x"), ("wg_x", "wg_xy"), ("wg_xy", "wg_xyz")]
    assert [each.at for each in found] == sorted(each.at for each in found)
    for each in found:
        around = np.array([0.98, 1.0, 1.02]) * each.at
        gain = layout_seconds(plan.point, each.before, around) - layout_seconds(plan.point, each.after, around)
        assert gain[0] < 0 < gain[2]
        assert abs(gain[1]) < 0.1 * max(abs(gain[0]), abs(gain[2]))


def test_weights_move_from_about_as_many_tokens_as_the_volume_says(plan):
    for each in token_crossovers(plan.point):
        assert each.closed_form / 3 < each.at < each.closed_form * 3


def test_two_dimensions_pay_from_some_chips(plan):
    decode = replace(plan, point=replace(plan.point, phase="decode", output_len=64, input_len=1984))
    found = chip_crossover(decode)
    assert (found.before, found.after, found.unit) == ("ws_1d", "ws_2d", "chips")
    assert found.closed_form == 16
    assert 16 <= found.at <= 64


def test_one_chip_and_gpus_have_none(plan):
    assert token_crossovers(replace(plan.point, num_chips=1, mesh_shape=None)) == []
    gpu = search(workload_of(model="gpt-20b", hw="a100-80gb", num_chips=8, batch_size=8, input_len=60)).chosen
    assert list(crossovers(gpu)) == []

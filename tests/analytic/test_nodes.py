"""GPU nodes: micro-batches, all-reduces and pipeline turns as FasterTransformer runs them."""

from dataclasses import replace

import numpy as np
import pytest

from engines.analytic import gpu_nodes
from engines.analytic.grid import Grid, grid_of


@pytest.fixture
def make_grid(make_point):
    def make(**keys) -> Grid:
        asked = {"model": "mt-nlg-530b", "hw": "a100-80gb", "phase": "generate", "input_len": 60, "output_len": 20}
        return grid_of([make_point(**{**asked, "weight_dtype": "float16", **keys})])

    return make


@pytest.mark.parametrize(
    ("batch", "length", "micro"),
    [
        (16, 128, 16),  # 2048 tokens pass whole
        (32, 128, 16),  # 4096 are halved once
        (256, 128, 16),
        (64, 60, 32),  # 3840
        (6, 1, 2),  # three stages divide six
        (7, 1024, 7),  # an odd batch cannot be halved
    ],
)
def test_micro_batches_by_hand(make_grid, batch, length, micro):
    grid = make_grid(num_chips=24, tensor_parallel=8, pipeline_parallel=3, batch_size=batch, input_len=length)
    assert gpu_nodes.micro_batch(grid, grid.input_len)[0] == micro


def test_without_a_pipeline_the_batch_stays_whole(make_grid):
    grid = make_grid(num_chips=16, tensor_parallel=16, batch_size=256, input_len=128)
    assert gpu_nodes.micro_batch(grid, grid.input_len)[0] == 256


def test_all_reduce_inside_a_node_by_hand(make_grid):
    grid = replace(make_grid(num_chips=8, tensor_parallel=8), link_efficiency=np.full(1, 0.5))
    transfer, start = gpu_nodes.all_reduce_s(grid, np.full(1, 1e9))
    # A ring over 8: 2·7/8 GB past each rank at half of 300 GB/s, 14 hops.
    assert transfer[0] == pytest.approx(1.75 / 150)
    assert start[0] == pytest.approx(float(grid.collective_s[0] + 14 * grid.hop_s[0]))


def test_all_reduce_across_nodes_uses_every_card(make_grid):
    grid = replace(make_grid(num_chips=16, tensor_parallel=16), network_efficiency=np.full(1, 0.5))
    transfer, start = gpu_nodes.all_reduce_s(grid, np.full(1, 1e9))
    assert transfer[0] == pytest.approx(2 * 15 / 16 / 100)
    inside = float(grid.collective_s[0] + 14 * grid.hop_s[0])
    assert start[0] == pytest.approx(inside + float(grid.network_collective_s[0]))


def test_one_rank_reduces_nothing(make_grid):
    transfer, start = gpu_nodes.all_reduce_s(make_grid(model="gpt-20b", num_chips=1), np.full(1, 1e9))
    assert transfer[0] == 0
    assert start[0] == 0


def test_three_stages_load_the_weights_one_after_the_other(make_grid):
    # In a decode step one micro-batch passes three stages: the whole model's weights over 8 ranks, not 24.
    grid = make_grid(num_chips=24, tensor_parallel=8, pipeline_parallel=3, batch_size=1)
    step = gpu_nodes.forward(grid, np.ones(1), np.ones(1))
    weights = 105 * 12 * 20480**2 * 2 / 8
    rate = 2039e9 * float(grid.hbm_efficiency[0])
    assert step.memory_s[0] == pytest.approx(weights / rate, rel=0.02)


def test_more_ranks_are_faster_inside_a_node(make_grid):
    seconds = [
        float(gpu_nodes.forward(make_grid(model="gpt-20b", num_chips=n), np.ones(1), np.full(1, 60.0)).latency_s[0])
        for n in (1, 2, 4, 8)
    ]
    assert seconds == sorted(seconds, reverse=True)
    # Fixed costs do not shrink: eight ranks are nowhere near eight times as fast.
    assert seconds[0] / seconds[3] < 4

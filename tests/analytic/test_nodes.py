"""GPU nodes: micro-batches, all-reduces and pipeline turns as FasterTransformer runs them."""

from dataclasses import replace

import numpy as np
import pytest

from engines.analytic import gpu_links, gpu_nodes, gpu_ranks
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
    transfer, start = gpu_links.all_reduce_s(grid, np.full(1, 1e9))
    # A ring over 8: 2·7/8 GB past each rank at half of 300 GB/s, 14 hops.
    assert transfer[0] == pytest.approx(1.75 / 150)
    assert start[0] == pytest.approx(float(grid.collective_s[0] + 14 * grid.hop_s[0]))


def test_all_reduce_across_nodes_uses_every_card(make_grid):
    grid = replace(make_grid(num_chips=16, tensor_parallel=16), network_efficiency=np.full(1, 0.5))
    transfer, start = gpu_links.all_reduce_s(grid, np.full(1, 1e9))
    assert transfer[0] == pytest.approx(2 * 15 / 16 / 100)
    inside = float(grid.collective_s[0] + 14 * grid.hop_s[0])
    assert start[0] == pytest.approx(inside + float(grid.network_collective_s[0]))


@pytest.mark.parametrize("hw", ["a100-80gb", "rtx-4090"])  # the second states no link
def test_one_rank_reduces_nothing(make_grid, hw):
    transfer, start = gpu_links.all_reduce_s(make_grid(model="gpt-20b", hw=hw, num_chips=1), np.full(1, 1e9))
    assert transfer[0] == 0
    assert start[0] == 0


def test_three_stages_load_the_weights_one_after_the_other(make_grid):
    # In a decode step one micro-batch passes three stages: the whole model's weights over 8 ranks, not 24.
    grid = make_grid(num_chips=24, tensor_parallel=8, pipeline_parallel=3, batch_size=1)
    step = gpu_nodes.forward(grid, np.ones(1), np.ones(1), False)
    weights = 105 * 12 * 20480**2 * 2 / 8
    rate = 2039e9 * float(grid.hbm_efficiency[0])
    assert step.memory_s[0] == pytest.approx(weights / rate, rel=0.02)


def test_more_ranks_are_faster_inside_a_node(make_grid):
    seconds = [
        float(
            gpu_nodes.forward(make_grid(model="gpt-20b", num_chips=n), np.ones(1), np.full(1, 60.0), False).latency_s[0]
        )
        for n in (1, 2, 4, 8)
    ]
    assert seconds == sorted(seconds, reverse=True)
    # Fixed costs do not shrink: eight ranks are nowhere near eight times as fast.
    assert seconds[0] / seconds[3] < 4


def test_query_heads_read_their_key_value_head_again_by_the_runtimes_share(make_grid):
    # Llama 3 70B on 4 ranks: 2 key/value heads a rank, 8 query heads each; at 0.5 a head is read 1 + 7/2 times.
    grid = make_grid(model="llama-3-70b", num_chips=4, batch_size=8)
    for share, times in ((0.0, 1.0), (0.5, 4.5), (1.0, 8.0)):
        assert gpu_ranks.reread(replace(grid, kv_reread=np.full(1, share)))[0] == times
    multihead = replace(make_grid(model="gpt-20b", num_chips=4), kv_reread=np.ones(1))
    assert gpu_ranks.reread(multihead)[0] == 1


def test_the_longer_of_host_and_device_counts(make_grid):
    grid = make_grid(model="gpt-20b", num_chips=1)
    device = gpu_nodes.forward(replace(grid, host_layer_s=np.zeros(1)), np.ones(1), np.full(1, 60.0), False)
    for host_s in (1e-5, 1e-2):
        step = gpu_nodes.forward(replace(grid, host_layer_s=np.full(1, host_s)), np.ones(1), np.full(1, 60.0), False)
        assert step.latency_s[0] == pytest.approx(max(44 * host_s, float(device.latency_s[0])))


def test_stages_of_one_node_hand_over_by_its_switch(make_grid):
    inside = make_grid(model="gpt-20b", num_chips=8, tensor_parallel=4, pipeline_parallel=2)
    across = make_grid(model="gpt-20b", num_chips=16, tensor_parallel=8, pipeline_parallel=2)
    sent = 1000 * 6144 * 2
    for grid, ranks, rate in (
        (inside, 4, 300e9 * inside.link_efficiency),
        (across, 8, 25e9 * across.network_efficiency),
    ):
        seconds = gpu_links.hand_over_s(grid, np.full(1, 1000.0))
        assert seconds[0] == pytest.approx(float(sent / ranks / rate[0] + grid.stage_s[0]))


def test_only_a_prefill_that_materialises_its_scores_moves_them(make_grid):
    grid = make_grid(model="gpt-20b", num_chips=1, batch_size=4)

    def moved(passes, prefill):
        changed = replace(grid, score_passes=np.full(1, passes))
        return float(gpu_nodes.forward(changed, np.full(1, 100.0), np.full(1, 100.0), prefill).memory_s[0])

    stream = 2039e9 * float(grid.hbm_efficiency[0])
    assert moved(4.0, True) - moved(0.0, True) == pytest.approx(44 * 4 * 400 * 100 * 48 * 2 / stream)
    assert moved(4.0, False) == moved(0.0, False)

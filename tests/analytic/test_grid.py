"""A grid is one array computation: blocks, single points and a million points give the same answers."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.analytic.grid import grid_of
from engines.analytic.predict import BLOCK, blocks, predict, run_phase
from engines.analytic.strategies import ON_TORUS, STRATEGIES, Strategy


def test_blocks_join_to_the_whole(make_point):
    grid = grid_of([make_point(), make_point(phase="prefill", model="palm-62b", num_chips=16)])
    many = grid.take(np.arange(2 * BLOCK + 7) % 2)
    places, parts = zip(*blocks(many), strict=True)
    assert [place.stop - place.start for place in places] == [BLOCK, BLOCK, 7]
    assert [place.start for place in places] == [0, BLOCK, 2 * BLOCK]
    joined = np.concatenate([part.cost.latency_s for part in parts])
    assert joined == pytest.approx(np.tile(predict(grid).cost.latency_s, BLOCK + 4)[: len(many)])


def test_a_point_is_the_same_alone_and_in_company(make_point):
    points = [make_point(batch_size=size, phase=phase) for size in (1, 8, 512) for phase in ("prefill", "decode")]
    together = predict(grid_of(points)).cost.latency_s
    alone = [predict(grid_of([point])).cost.latency_s[0] for point in points]
    assert together == pytest.approx(alone)


def test_gpus_and_tpus_do_not_mix(make_point):
    with pytest.raises(ValueError, match="not both"):
        predict(grid_of([make_point(), make_point(model="gpt-20b", hw="a100-80gb", input_len=10)]))


def test_a_phase_that_a_point_lacks_is_free(make_point):
    grid = grid_of([make_point(phase="prefill")])
    decode = run_phase(grid, "decode", STRATEGIES.index(Strategy("ws_2d", "heads")))
    assert decode.cost.latency_s[0] == 0
    assert decode.memory.peak_hbm_bytes[0] == 0
    assert decode.possible[0]


def test_decode_at_the_mean_context_is_the_sum_over_steps(make_point):
    # Memory and attention are linear in the context, so eight steps cost what eight single steps cost.
    strategy = STRATEGIES.index(Strategy("ws_2d", "batch"))
    whole = run_phase(grid_of([make_point(input_len=100, output_len=8)]), "decode", strategy)
    steps = [
        run_phase(grid_of([make_point(input_len=100 + step, output_len=1)]), "decode", strategy) for step in range(8)
    ]
    assert whole.cost.memory_s[0] == pytest.approx(sum(step.cost.memory_s[0] for step in steps))
    assert whole.cost.latency_s[0] == pytest.approx(sum(step.cost.latency_s[0] for step in steps))


def test_a_step_attends_to_its_own_token_too(make_point):
    # Weights and activations of no size leave the cache: 64 sequences on 64 chips, 118 layers of 2·256 bf16 numbers for
    # each of 10 cached tokens and the new one.
    grid = grid_of([make_point(input_len=10, output_len=1)])
    grid = replace(grid, weight_bytes=np.zeros(1), head_bytes=np.zeros(1), act_bytes=np.zeros(1))
    step = run_phase(grid, "decode", STRATEGIES.index(Strategy("ws_2d", "batch")))
    rate = float((grid.hbm_bytes_per_s * grid.hbm_efficiency * grid.cache_efficiency)[0])
    assert step.cost.memory_s[0] == pytest.approx(118 * 2 * 256 * 2 * 11 / rate)
    assert step.memory.kv_cache_bytes[0] == 118 * 2 * 256 * 2 * 11


def test_batches_beyond_whole_shards_leave_layouts_out(make_point):
    grid = replace(grid_of([make_point()]), batch=np.full(1, 6.0))
    possible = {STRATEGIES[index]: bool(run_phase(grid, "decode", index).possible[0]) for index in range(len(ON_TORUS))}
    assert possible[Strategy("ws_2d", "heads")]
    assert not possible[Strategy("ws_2d", "batch")]
    assert not possible[Strategy("wg_x", "heads")]


@pytest.mark.slow(seconds=10)
@pytest.mark.thorough
def test_a_million_points_stay_under_two_gigabytes():
    program = Path(__file__).parent / "bench_million.py"
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print(done.stdout)
    assert found["points"] == 1_000_000
    assert found["peak_bytes"] < 2e9
    assert 0 < found["fits"] < found["points"]

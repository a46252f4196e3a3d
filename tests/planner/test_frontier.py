"""The Pareto frontier: nothing beats it, everything else is beaten."""

import csv
from dataclasses import replace
from math import log

import numpy as np
import pytest
from builders.workloads import workload_of
from hypothesis import given
from hypothesis import strategies as st

from bench.planner.pareto import is_frontier, spots

pairs = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=40)


@given(pairs)
def test_the_frontier_is_what_nothing_beats(ways):
    latency, cost = (np.array([way[axis] for way in ways], dtype=float) for axis in (0, 1))
    on = is_frontier(latency, cost)
    for index, (time, price) in enumerate(ways):
        beaten = any((t <= time and c <= price and (t, c) != (time, price)) for t, c in ways)
        if on[index]:
            assert not beaten
        else:
            twin = any(on[other] and ways[other] == (time, price) for other in range(len(ways)))
            assert beaten or twin


def frontier(model, phase="decode", **keys):
    asked = {"model": model, "phase": phase, "batch_size": "auto", "num_chips": "auto", "input_len": 1984, **keys}
    return [spot for spot in spots(workload_of(**asked)) if spot.on_frontier]


def test_small_batches_are_fast_and_large_ones_cheap():
    line = sorted(frontier("palm-62b", weight_dtype="int8"), key=lambda spot: spot.latency_s)
    assert [spot.cost_chip_s_per_token for spot in line] == sorted(
        (spot.cost_chip_s_per_token for spot in line), reverse=True
    )
    assert line[0].batch_size < line[-1].batch_size
    assert line[0].num_chips > line[-1].num_chips
    assert line[0].mfu < line[-1].mfu < 1


def test_least_latency_grows_about_as_the_square_root_of_size():
    # Pope et al. 2022, Figure 1 and its discussion.
    least = {
        model: min(spot.latency_s for spot in frontier(model, weight_dtype="bfloat16"))
        for model in ("palm-8b", "palm-540b")
    }
    power = log(least["palm-540b"] / least["palm-8b"]) / log(540.35 / 8.63)
    assert 0.3 < power < 0.6


def test_each_dtype_has_its_own_frontier():
    best = frontier("palm-62b", num_chips=[16, 32], batch_size=[1, 64])
    assert {spot.weight_dtype for spot in best} == {"bfloat16", "int8"}


def test_a_frontier_is_of_one_phase():
    with pytest.raises(ValueError, match="one phase"):
        spots(workload_of(model="palm-8b", phase="generate"))


def test_the_command_writes_table_and_figure(command, tmp_path):
    code, content = command(
        "pareto", "model=[palm-8b,palm-62b]", "num_chips=[8,16]", "batch_size=[1,64]", f"out={tmp_path}"
    )
    assert code == 0
    with (tmp_path / "pareto.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == content["configurations"]
    assert sum(row["on_frontier"] == "True" for row in rows) == len(content["frontier"])
    assert {row["phase"] for row in rows} == {"decode", "prefill"}
    for ending in ("png", "pdf"):
        assert (tmp_path / f"pareto.{ending}").stat().st_size > 5000


def test_nothing_that_fits_is_exit_code_one(tmp_path, capsys):
    from bench.cli.args import parse
    from bench.cli.commands.pareto import KEYS, main

    _, settings = parse("pareto", ["model=palm-540b", "num_chips=4", f"out={tmp_path / 'none'}"], KEYS, {})
    assert main(None, settings) == 1
    assert "no configuration fits" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_plan_above_its_peak_is_on_no_frontier():
    # A model said to be ten times its size: what reaches more than a tenth of the peak would be above the peak.
    asked = {"phase": "decode", "batch_size": "auto", "num_chips": 16, "input_len": 1984, "weight_dtype": "int8"}
    workload = workload_of(model="palm-62b", **asked)
    said = replace(workload, model=replace(workload.model, mfu_params=10 * workload.model.mfu_params))
    true = [spot.mfu for spot in spots(workload) if spot.on_frontier]
    assert max(spot.mfu for spot in spots(said)) == pytest.approx(10 * max(spot.mfu for spot in spots(workload)))
    assert max(true) > 0.1
    assert 0 < max(spot.mfu for spot in spots(said) if spot.on_frontier) <= 1

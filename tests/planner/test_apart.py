"""Plans that predictions cannot tell apart are said to be so: in a search, on the command line and on the frontier."""

import json

import numpy as np
import pytest
from builders.workloads import workload_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bench.cli.main import main
from bench.planner.apart import with_intervals
from bench.planner.pareto import is_beaten, is_frontier
from bench.planner.search import search
from bench.validate.ratios import ratio_error
from engines.core.errors import InvalidRequest

DECODE = ["model=palm-540b", "num_chips=64", "phase=decode", "batch_size=64", "input_len=1984", "weight_dtype=int8"]


def test_a_loss_has_the_interval_of_a_ratio():
    found = with_intervals(search(workload_of(model="palm-540b", num_chips=64, batch_size=64, phase="decode")))
    factor = ratio_error("tpu", same_workload=True).factor
    assert found.chosen.told_apart is None
    assert found.runners_up
    for plan in found.runners_up:
        low, high = plan.loss_interval
        assert (1 + plan.loss) / factor == pytest.approx(1 + low)
        assert (1 + plan.loss) * factor == pytest.approx(1 + high)
        assert plan.told_apart == (low > 0)


def test_the_command_says_it_in_text_and_json(capsys):
    main(["plan", *DECODE, "print=json"])
    told = json.loads(capsys.readouterr().out)
    close = [each for each in told["runners_up"] if not each["told_apart"]]
    assert told["not_told_apart"] == len(close)
    assert all(each["loss_interval"][0] <= 0 for each in close)
    main(["plan", *DECODE])
    text = capsys.readouterr().out
    assert ("cannot be told apart from the best" in text) == bool(close)


def test_a_plan_is_for_the_runtime_that_is_asked(capsys):
    assert main(["plan", *DECODE, "runtime=vllm"]) != 0
    assert "runtime=vllm: does not run on hw=tpu-v4" in capsys.readouterr().err
    with pytest.raises(InvalidRequest, match="does not run"):
        search(workload_of(model="palm-540b", num_chips=64, batch_size=64, runtime="vllm"))


POSITIVE = arrays.arrays(float, 12, elements=st.floats(0.1, 10))


@given(POSITIVE, POSITIVE, st.floats(1, 3))
def test_what_is_not_beaten_may_be_on_the_frontier(latency, cost, factor):
    on = is_frontier(latency, cost)
    beaten = is_beaten(latency, cost, on, factor)
    assert not (beaten & on).any()
    assert (is_beaten(latency, cost, on, 2 * factor) <= beaten).all(), "a wider interval tells fewer apart"
    for place in np.flatnonzero(beaten):
        assert ((factor * latency < latency[place]) & (factor * cost < cost[place])).any()


def test_pareto_counts_what_cannot_be_told_apart_from_its_frontier(tmp_path, capsys):
    main(["pareto", "model=palm-62b", "phase=decode", "num_chips=[16,32]", f"out={tmp_path}", "print=json"])
    told = json.loads(capsys.readouterr().out)
    assert told["within"] == pytest.approx(ratio_error("tpu").factor - 1)
    header, *lines = (tmp_path / "pareto.csv").read_text().splitlines()
    column, frontier = (header.split(",").index(name) for name in ("told_apart", "on_frontier"))
    cells = [line.split(",") for line in lines]
    close = [row for row in cells if row[column] == "False" and row[frontier] == "False"]
    assert told["not_told_apart"] == len(close)

"""A batch that chips do not split may be padded to one that they do."""

import pytest
from builders.points import point
from builders.workloads import workload_of
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.planner.padded import larger_batches, padded_batches
from bench.planner.search import search

KEYS = {"model": "llama-3-70b", "phase": "decode", "num_chips": 16, "input_len": 32768, "objective": "latency"}


def plan(batch):
    return search(workload_of(**KEYS, batch_size=batch)).chosen


@given(st.integers(1, 12), st.integers(0, 4))
@settings(max_examples=6, deadline=None)
def test_a_smaller_batch_never_takes_longer_than_a_larger_one(batch, more):
    less, all_ = plan(batch), plan(batch + more)
    assert less.latency_s <= all_.latency_s * (1 + 1e-9)
    assert less.sequences == batch <= less.point.batch_size


def test_a_padded_batch_takes_the_time_of_the_larger_one_and_yields_the_tokens_asked_for():
    seven, eight = plan(7), plan(8)
    assert seven.latency_s <= eight.latency_s
    assert seven.tokens_per_s == pytest.approx(7 * 64 / seven.latency_s)
    assert seven.to_dict()["sequences"] == 7


@pytest.mark.parametrize(
    ("batch", "mesh", "padded"),
    [
        (7, (2, 2, 4), [8, 16]),
        (8, (2, 2, 4), [16]),
        (1, (1, 1, 1), []),
        (12, (2, 2, 4), [16]),
        (16, (2, 2, 4), []),
        (5, (1, 2, 3), [6]),
    ],
)
def test_a_batch_is_padded_to_the_next_that_some_axes_split(batch, mesh, padded):
    assert padded_batches(batch, mesh) == padded


@pytest.mark.parametrize(
    ("model", "ranks", "batch", "larger"),
    [
        ("mixtral-8x7b", 8, 1, [2, 4, 8]),
        ("mixtral-8x7b", 8, 3, [4, 8]),
        ("mixtral-8x7b", 8, 8, []),
        ("deepseek-v3", 4, 2, [4]),
        ("llama-3-70b", 8, 1, []),  # its heads are split, and its sequences never
    ],
)
def test_groups_of_ranks_that_attend_to_sequences_of_their_own_need_one_each(model, ranks, batch, larger):
    sizes = {"num_chips": 2 * ranks, "tensor_parallel": ranks, "phase": "decode", "input_len": 64, "output_len": 8}
    asked = point(model, "h200", engine="analytic", batch_size=batch, weight_dtype="bfloat16", **sizes)
    assert larger_batches(batch, asked) == larger


def test_one_sequence_takes_no_longer_than_two_where_groups_of_ranks_attend():
    """Mixtral on 16 ranks: a step of one sequence is 1.3 times one of two, unless a group is left idle."""
    keys = {"model": "mixtral-8x7b", "hw": "h200", "phase": "decode", "num_chips": 16, "objective": "latency"}
    one, two = (
        next(plan for plan in [found.chosen, *found.runners_up] if plan.point.pipeline_degree == 1)
        for found in (search(workload_of(**keys, batch_size=batch)) for batch in (1, 2))
    )
    assert (one.sequences, one.point.batch_size) == (1, 2)
    assert one.latency_s <= two.latency_s * (1 + 1e-9)

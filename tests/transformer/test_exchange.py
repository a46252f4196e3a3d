"""Sums by exchange between pairs of chips, and sums of many tokens that overlap the other half's matmuls."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from builders.models import MODELS
from builders.plans import mesh_of, plan_of
from hypothesis import given
from partitioned_case import errors

from engines.compiled.hlo.replica_groups import permute_hops
from engines.transformer.comm.exchange import partners
from engines.transformer.programs import abstract_arguments, make_decode, make_prefill

pytestmark = pytest.mark.usefixtures("plainly_compiled")


@given(st.integers(0, 6), st.booleans())
def test_every_chip_ends_with_every_term_once(log_size, ring):
    size = 1 << log_size
    held = [{chip: 1} for chip in range(size)]
    steps = partners(size, ring=ring)
    assert len(steps) == log_size
    for step in steps:
        assert [step[other] for other in step] == list(range(size))  # pairs
        held = [
            {term: held[chip].get(term, 0) + held[other].get(term, 0) for term in {*held[chip], *held[other]}}
            for chip, other in enumerate(step)
        ]
    assert all(each == dict.fromkeys(range(size), 1) for each in held)


@pytest.mark.parametrize(("size", "ring", "hops"), [(2, False, 1), (4, False, 3), (8, False, 7), (4, True, 2)])
def test_hops_of_an_axis_by_hand(size, ring, hops):
    farthest = [permute_hops(list(enumerate(step)), (size,), (ring,))[1] for step in partners(size, ring=ring)]
    assert sum(farthest) == hops


def text_of(plan, time):
    mesh = mesh_of(plan.mesh_shape)
    arguments = abstract_arguments(plan, mesh, time)
    made = make_decode(plan, mesh, 1).lower(*arguments["decode"]) if plan.decodes else None
    return (made or make_prefill(plan, mesh).lower(*arguments["prefill"])).as_text()


def test_a_step_exchanges_half_of_its_columns_in_the_opposite_order():
    plan = plan_of(MODELS["llama"], (2, 2, 2), collectives="exchange", unrolled=True)
    found = text_of(plan, 4).count("collective_permute")
    sums = 2 * plan.model.num_layers + 1  # and the embedding's
    assert found == sums * 3 * (2 if plan.model.d_model % 256 == 0 else 1)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ws_1d", "ws_2d"])
def test_a_prompt_s_tokens_are_split_between_projections(layout):
    plan = plan_of(MODELS["llama"], (2, 2, 2), layout, collectives="exchange", cache_len=40)
    assert plan.splits_tokens(8 * 32)
    text = text_of(replace(plan, decodes=False), 32)
    assert text.count("reduce_scatter") >= 2  # after each projection of the loop
    assert max(errors(plan, time=32)) < 1e-5


def test_what_splits_no_tokens():
    for settings, tokens in (({}, 8 * 4), ({"collectives": "all_reduce"}, 256), ({"partitioner": "gspmd"}, 256)):
        assert not plan_of(MODELS["llama"], (2, 2, 2), **{"collectives": "exchange", **settings}).splits_tokens(tokens)
    assert not plan_of(MODELS["palm"], (2, 2, 2), collectives="exchange").splits_tokens(256)

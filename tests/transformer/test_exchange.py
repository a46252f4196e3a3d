"""Sums by exchange between pairs of chips."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from builders.models import MODELS
from builders.plans import mesh_of, plan_of
from hypothesis import given
from partitioned_case import errors

from engines.compiled.hlo.replica_groups import permute_hops
from engines.transformer.comm import exchange
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


def test_many_bytes_are_summed_by_an_all_reduce(monkeypatch):
    monkeypatch.setattr(exchange, "EXCHANGED_BYTES", 0)
    plan = plan_of(MODELS["llama"], (2, 2, 2), collectives="exchange")
    assert text_of(plan, 4) == text_of(replace(plan, collectives="all_reduce"), 4)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ws_1d", "ws_2d"])
def test_equals_the_reference(layout):
    assert max(errors(plan_of(MODELS["llama"], (2, 2, 2), layout, collectives="exchange"))) < 1e-5

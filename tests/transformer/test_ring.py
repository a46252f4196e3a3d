"""Every variant that loops has a ring, and nothing runs as another variant in silence."""

import pytest
from builders.models import MODELS
from builders.plans import mesh_of, plan_of
from partitioned_case import TIME

from engines.core import layout
from engines.core.errors import InvalidRequest
from engines.core.layout import VARIANTS, CollectiveVariant
from engines.transformer.comm.ring import RINGS
from engines.transformer.programs import abstract_arguments, make_prefill


def test_every_looped_variant_has_a_ring():
    assert set(RINGS) == {name for name, variant in VARIANTS.items() if variant.looped}


def test_a_plan_of_an_unknown_variant_is_an_invalid_request():
    with pytest.raises(InvalidRequest, match="collectives=zigzag: "):
        plan_of(MODELS["palm"], (1, 1, 2), "ws_2d", "heads", collectives="zigzag")


@pytest.mark.parametrize("ffn_layout", ["ws_2d", "wg_xy"])
def test_a_variant_without_a_ring_is_an_invalid_request_where_programs_are_made(monkeypatch, ffn_layout):
    monkeypatch.setitem(layout.VARIANTS, "zigzag", CollectiveVariant("zigzag", looped=True))
    plan = plan_of(MODELS["palm"], (2, 2, 2), ffn_layout, "heads", collectives="zigzag")
    mesh = mesh_of(plan.mesh_shape)
    with pytest.raises(InvalidRequest, match="collectives=zigzag: has no ring"):
        make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, TIME)["prefill"])

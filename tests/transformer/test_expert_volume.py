"""What experts send: the closed form against compiled HLO, on 8 and 64 devices."""

from collections import Counter
from typing import Any

import pytest
from hlo_collectives import compiled_experts, experts_plan, loop_collectives
from many_devices import counted_on_64_devices
from partitioned_case import TIME

from engines.transformer.comm.volume import layer_transfers
from engines.transformer.partition.plan import Plan

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

SHARED = {"shared_expert_d_ff": 64, "shared_expert_gate": True}
BIASED = {"ffn_bias": True}


def closed_form(plan: Plan) -> Counter[Any]:
    return Counter((each.kind, each.axes, each.payload_bytes) for each in layer_transfers(plan, TIME))


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize(
    ("ffn_layout", "expert_axes", "dispatch", "changes", "settings"),
    [
        ("ws_1d", "", "gather", SHARED, {}),
        ("ws_1d", "yz", "gather", {}, {}),
        ("ws_2d", "x", "gather", SHARED, {}),
        ("ws_2d", "y", "gather", {}, {}),
        ("ws_1d", "xyz", "all_to_all", SHARED, {}),
        ("ws_2d", "y", "all_to_all", {}, {}),
        ("ws_2d", "xz", "all_to_all", {}, {"expert_capacity": 1.0}),
        ("wg_x", "xy", "all_to_all", {}, {}),
        ("wg_xyz", "y", "gather", BIASED, {"weight_dtype": "int8"}),
        ("ws_1d", "z", "all_to_all", {}, {"collectives": "all_reduce"}),
        ("ws_2d", "z", "gather", {}, {"collectives": "all_reduce"}),
    ],
)
def test_the_compiled_layer_sends_what_the_closed_form_says(
    ffn_layout: str, expert_axes: str, dispatch: str, changes: dict[str, Any], settings: dict[str, Any]
) -> None:
    plan, text = compiled_experts((2, 2, 2), ffn_layout, expert_axes, dispatch, changes, **settings)
    assert loop_collectives(text, plan.mesh_shape) == closed_form(plan)


def test_on_64_devices() -> None:
    cases: list[tuple[Any, ...]] = [
        ((4, 4, 4), "ws_1d", "xyz", "all_to_all", None, {"expert_capacity": 1.0}),
        ((4, 4, 4), "ws_2d", "yz", "all_to_all", None, {}),
        ((4, 4, 4), "ws_2d", "xy", "gather", None, {}),
    ]
    for (*layout, settings), counted in zip(cases, counted_on_64_devices(cases), strict=True):
        assert counted == closed_form(experts_plan(*layout, **settings)), layout


def test_balanced_routing_by_hand() -> None:
    # 64 chips with an expert each and one sequence of 5 tokens; each token sends E = 256 values to 2 experts.
    plan = experts_plan((4, 4, 4), "ws_1d", "xyz", "all_to_all")
    found = [each for each in layer_transfers(plan, TIME, ragged=True) if each.kind == "all-to-all"]
    sent = sum(each.payload_bytes for each in found if each.payload_bytes == 5 * 2 * 256 * 4)
    assert sent == 2 * 5 * 2 * 256 * 4
    # A chip first exchanges its 4 values of each of 320 tokens for all 256 of 5, and back at the end.
    exchanged = [each.payload_bytes for each in found if each.payload_bytes == 320 * 4 * 4]
    assert len(exchanged) == 2

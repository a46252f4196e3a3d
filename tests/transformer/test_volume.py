from collections import Counter

import pytest
from builders.models import small_model
from builders.plans import plan_of
from hlo_collectives import compiled_prefill, loop_collectives, one_sequence_a_chip
from many_devices import counted_on_64_devices
from partitioned_case import TIME

from engines.core.layout import FFN_LAYOUTS
from engines.transformer.comm.volume import layer_transfers
from engines.transformer.partition.plan import Plan

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

LAYOUTS = [name for name in FFN_LAYOUTS if name != "auto"]


def closed_form(plan: Plan, time: int = TIME) -> Counter:
    return Counter((each.kind, each.axes, each.payload_bytes) for each in layer_transfers(plan, time))


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("attn_sharding", ["heads", "batch"])
@pytest.mark.parametrize("ffn_layout", LAYOUTS)
@pytest.mark.parametrize("model", ["palm", "gpt"])
def test_the_compiled_layer_sends_what_the_closed_form_says(model, ffn_layout, attn_sharding):
    plan, text = compiled_prefill(model, (2, 2, 2), ffn_layout, attn_sharding)
    assert loop_collectives(text, plan.mesh_shape) == closed_form(plan)


def test_int8_weights_are_gathered_as_int8():
    plan, text = compiled_prefill("gpt", (2, 2, 2), "wg_xy", "batch", "int8")
    assert loop_collectives(text, plan.mesh_shape) == closed_form(plan)


def test_on_64_devices():
    cases = [
        ("palm", (4, 4, 4), "ws_2d", "batch"),
        ("gpt", (4, 4, 4), "ws_2d", "heads"),
        ("palm", (4, 4, 4), "ws_1d", "heads"),
        ("palm", (4, 4, 4), "wg_xy", "batch"),
    ]
    for case, counted in zip(cases, counted_on_64_devices(cases), strict=True):
        assert counted == closed_form(one_sequence_a_chip(*case)), case


@pytest.mark.parametrize("ffn_layout", LAYOUTS)
def test_feed_forward_by_hand(ffn_layout):
    # E = 64, F = 256, X, Y, Z = 2, 4, 8, 64 sequences of 5 tokens in float32.
    model = small_model(
        block="serial", activation="gelu", norms_per_layer=2, d_model=64, d_ff=256, num_heads=64, num_kv_heads=64
    )
    plan = plan_of(model, (2, 4, 8), ffn_layout, "heads", 64, cache_len=5)
    tokens, e, f, n = 64 * 5, 64, 256, 64
    gathered = {"wg_x": 2, "wg_xy": 8, "wg_xyz": 64}.get(ffn_layout)
    activations = {
        "ws_1d": 2 * tokens * e,
        "ws_2d": 2 * tokens * (e / 2 + f / 32),
        "wg_x": 2 * tokens * e / 2,
        "wg_xy": 2 * tokens * e / 8,
        "wg_xyz": 0,
    }
    found = layer_transfers(plan, 5)
    assert (
        sum(each.payload_bytes for each in found if each.what in ("ffn.in", "ffn.out")) == 4 * activations[ffn_layout]
    )
    # The last gather of a matrix returns all that the chip then holds.
    weights = [each.payload_bytes for each in found if each.what == "ffn weights"]
    if gathered:
        assert max(weights) == 4 * e * f * gathered / n
    else:
        assert weights == []

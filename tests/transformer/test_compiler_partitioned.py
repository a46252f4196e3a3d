import pytest
from builders.models import MODELS
from builders.plans import mesh_of, plan_of
from hlo_collectives import LINE
from partitioned_case import TIME, errors

from engines.transformer.programs import abstract_arguments, make_decode

pytestmark = pytest.mark.usefixtures("plainly_compiled")


@pytest.mark.parametrize(
    ("model", "ffn_layout", "attn_sharding"),
    [("palm", "ws_1d", "heads"), ("palm", "ws_2d", "batch"), ("gpt", "ws_2d", "heads"), ("llama", "wg_x", "batch")],
)
def test_the_compiler_partitions_the_same_layer(model, ffn_layout, attn_sharding):
    plan = plan_of(MODELS[model], (2, 2, 2), ffn_layout, attn_sharding, partitioner="gspmd")
    assert max(errors(plan)) < 1e-5


def test_it_holds_the_same_share_of_the_weights_and_does_communicate():
    manual, automatic = (
        plan_of(MODELS["gpt"], (2, 2, 2), "ws_2d", "heads", partitioner=each) for each in ("manual", "gspmd")
    )
    mesh = mesh_of((2, 2, 2))
    compiled = [
        make_decode(plan, mesh, 2).lower(*abstract_arguments(plan, mesh, TIME)["decode"]).compile()
        for plan in (manual, automatic)
    ]
    held = [each.memory_analysis().argument_size_in_bytes for each in compiled]
    assert held[0] == held[1]
    assert any(LINE.search(line) for line in compiled[1].as_text().splitlines())

"""Shardings of every operator, told to the compiler: any of them computes the same logits."""

from dataclasses import replace

import pytest
from builders.models import MODELS, moe_model
from builders.plans import mesh_of, plan_of
from jax.sharding import PartitionSpec as P
from partitioned_case import errors

from engines.core.errors import InvalidRequest
from engines.core.shardings import EXPERTS, Shardings, sharded_values
from engines.transformer.layers.kv_cache import abstract_cache
from engines.transformer.params.parameters import abstract_parameters

pytestmark = pytest.mark.usefixtures("plainly_compiled")

FUSED = (
    "attention:z.x/fused.columns:z.-/fused.in:xz.-.y/fused.in.weights:x.-/fused.joined:-.yx/fused.out:x.-.-/"
    "fused.out.weights:z.x/residual:x.zy/table:y.-"
)
"""No two operators alike: weights gathered and exchanged, copies, terms summed in part."""
SERIAL = (
    "attention:-.zyx/attn.columns:-.-/attn.in:-.x.zy/attn.in.weights:xz.y/attn.joined:z.yx/attn.out:-.-.z/"
    "attn.out.weights:zyx.-/ffn.columns:-.y/ffn.in:xyz.-.-/ffn.in.weights:-.zy/ffn.out:-.z.y/ffn.out.weights:x.-/"
    "middle:-.z/residual:z.yx/table:-.z"
)
PLANNED = (
    "attention:z.yx/attn.columns:z.yx/attn.in:-.z.yx/attn.in.weights:z.yx/attn.joined:-.yx/attn.out:-.yx.z/"
    "attn.out.weights:yx.z/ffn.columns:-.zyx/ffn.in:-.-.zyx/ffn.in.weights:-.zyx/ffn.out:-.zx.y/ffn.out.weights:zx.y/"
    "middle:xy.z/residual:x.yz/table:-.zyx"
)
"""Alpa's plan of a decode step of Llama 3 70B on 16 TPU v4."""


BESIDE_EXPERTS = {
    "attention": ("z", "yx"),
    "attn.columns": ("z", "yx"),
    "attn.in": ("", "z", "yx"),
    "attn.in.weights": ("z", "yx"),
    "attn.joined": ("", "yx"),
    "attn.out": ("", "yx", "z"),
    "attn.out.weights": ("yx", "z"),
    "middle": ("xy", "z"),
    "residual": ("x", "yz"),
    "table": ("", "zyx"),
}
FED = {
    "ffn.columns": ("", "y"),
    "ffn.in": ("xy", "", ""),
    "ffn.in.weights": ("", "zy"),
    "ffn.out": ("", "z", "y"),
    "ffn.out.weights": ("x", ""),
}
SHARED = {"shared_expert_d_ff": 64, "shared_expert_gate": True, "dense_layers": 1, "num_layers": 3}


def planned(model, text, **settings):
    shardings = Shardings.parse(text)
    return plan_of(MODELS[model], (2, 2, 2), partitioner="gspmd", shardings=shardings, **settings)


@pytest.mark.parametrize(("model", "text"), [("palm", FUSED), ("llama", SERIAL), ("llama", PLANNED)])
def test_the_compiler_is_told_and_logits_are_the_same(model, text):
    assert max(errors(planned(model, text))) < 1e-5


def planned_experts(roles, **keys):
    """A plan whose mesh axes do to the experts what ``roles`` say, letters of EXPERTS for x, y and z."""
    dims = ["".join(axis for axis, role in zip("xyz", roles, strict=True) if role == letter) for letter in EXPERTS]
    settings = {name: keys.pop(name) for name in ("expert_capacity", "batch_size") if name in keys}
    model = moe_model(**keys)
    cuts = BESIDE_EXPERTS | {"experts": dims} | (FED if keys.get("shared_expert_d_ff") else {})
    return plan_of(model, (2, 2, 2), partitioner="gspmd", shardings=Shardings.of(cuts), **settings)


@pytest.mark.parametrize(
    ("roles", "keys"),
    [
        ("aek", {}),
        ("nta", {"expert_capacity": 4.0}),
        ("gke", {}),
        ("gag", {}),
        ("nen", {"batch_size": 4}),
        ("ean", SHARED),
    ],
)
def test_experts_are_split_as_the_plan_says_and_logits_are_the_same(roles, keys):
    """Tokens sent along a, all of them along e; k and n cut E and columns; t copies weights, g gathers them."""
    plan = planned_experts(roles, **keys)
    plan.check()
    assert max(errors(plan)) < 1e-5


def test_experts_lie_as_the_plan_says():
    plan = planned_experts("aeg")
    experts = abstract_parameters(plan, mesh_of((2, 2, 2))).layers[-1].experts
    # [layers, experts, E, columns] and [layers, experts, rows, E]: of the experts those with all tokens are slowest.
    assert experts.inputs.values.sharding.spec == P(None, ("y", "x"), None, ("z",))
    assert experts.outputs.values.sharding.spec == P(None, ("y", "x"), ("z",), None)
    assert plan.local_experts == 2


def test_experts_that_do_not_split_are_refused():
    with pytest.raises(
        InvalidRequest, match=r"experts:xyz\.-\.-\.-\.-\.-: splits the 4 experts of model=small over 8 chips"
    ):
        planned_experts("aaa", num_experts=4).check()
    with pytest.raises(InvalidRequest, match="does not split over the 8 chips of experts"):
        planned_experts("tag", batch_size=12).check()


def test_quantised_weights_and_cache_take_shardings_too():
    settings = {"weight_dtype": "int8", "act_dtype": "bfloat16", "kv_dtype": "int8"}
    assert max(errors(planned("llama", PLANNED, **settings))) < 0.1


def test_arrays_lie_as_the_plan_says():
    plan = planned("palm", FUSED)
    mesh = mesh_of((2, 2, 2))
    parameters = abstract_parameters(plan, mesh)
    fused = parameters.layers[0].fused
    # [layers, E, columns] and [layers, rows, E], [vocabulary, E].
    assert fused.inputs.values.sharding.spec == P(None, ("x",), None)
    assert fused.outputs.values.sharding.spec == P(None, ("z",), ("x",))
    assert parameters.embedding.values.sharding.spec == P(None, ("y",))
    cache = abstract_cache(plan, mesh)[0]["k"]
    # PaLM's one key/value head splits over no axis; sequences are over z.
    assert cache.sharding.spec[1:3] == ("z", None)
    assert plan.kv_axes == ()
    llama = planned("llama", PLANNED)
    assert llama.axes.head == ("y", "x")
    heads = llama.axes.size(llama.kv_axes)
    assert llama.padded.kv_heads % heads == 0
    assert heads == min(4, llama.padded.kv_heads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partitioner": "manual"}, "partitioner=gspmd"),
        ({"model": MODELS["llama"]}, "model=small needs 2 dimensions"),
        ({"batch_size": 6}, "does not split over the 4 chips of fused.in"),
    ],
)
def test_shardings_that_do_not_go_with_a_plan_are_refused(change, message):
    with pytest.raises(InvalidRequest, match=message):
        replace(planned("palm", FUSED), **change).check()


def test_what_a_plan_leaves_whole_needs_no_batch_to_split():
    names = sharded_values(MODELS["llama"])
    whole = Shardings.of({name: ("",) * dims for name, dims in names.items()})
    plan = plan_of(MODELS["llama"], (2, 2, 2), partitioner="gspmd", shardings=whole, attn_sharding="batch")
    plan.check()
    assert max(errors(plan)) < 1e-5


def test_every_value_has_a_name():
    assert sharded_values(MODELS["palm"]).keys() == {name for name, _ in Shardings.parse(FUSED).cuts}
    assert sharded_values(MODELS["llama"]).keys() == {name for name, _ in Shardings.parse(SERIAL).cuts}

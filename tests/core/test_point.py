"""Points: what is refused, what is filled in, what tells two apart."""

from dataclasses import dataclass, fields, replace
from functools import partial

import pytest
from builders.points import point as build_point
from hypothesis import given
from hypothesis import strategies as st

from bench.sweep.catalog import load_model
from engines.core.errors import InvalidRequest
from engines.core.layout import attention_batch_axes, axes_size
from engines.core.point import Point

point = partial(
    build_point,
    model="palm-540b",
    hw="tpu-v4",
    engine="analytic",
    phase="decode",
    num_chips=64,
    batch_size=64,
    input_len=1984,
    output_len=64,
)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"input_len": -1}, "input_len"),
        ({"output_len": -64}, "output_len"),
        ({"output_len": 0}, "output_len"),
        ({"batch_size": "many"}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"phase": "training"}, "phase"),
        ({"ffn_layout": "ws_3d"}, "ffn_layout"),
        ({"weight_dtype": "int7"}, "weight_dtype"),
        ({"phase": "prefill", "input_len": 0}, "input_len"),
        ({"first_token": "context"}, "first_token"),
        ({"mesh_shape": "4x4x4"}, "mesh_shape"),
    ],
)
def test_a_wrong_value_is_refused_at_once(changes, key):
    with pytest.raises(InvalidRequest) as refused:
        point(**changes)
    assert refused.value.key == key


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"num_chips": 7}, "num_chips"),
        ({"num_chips": 1, "ffn_layout": "ws_2d"}, "ffn_layout"),
        ({"num_chips": 1, "attn_sharding": "batch"}, "attn_sharding"),
        ({"batch_size": 3, "attn_sharding": "batch"}, "batch_size"),
        ({"batch_size": 32, "ffn_layout": "wg_xyz"}, "batch_size"),
        ({"tensor_parallel": 64}, "tensor_parallel"),
        ({"mesh_shape": (8, 8)}, "mesh_shape"),
    ],
)
def test_what_cannot_go_together_is_refused(changes, key):
    with pytest.raises(InvalidRequest) as refused:
        point(**changes).check()
    assert refused.value.key == key
    assert str(refused.value).startswith(f"{key}=")


def test_parallel_degrees_must_make_the_chips():
    gpus = {"hw": "a100-80gb", "num_chips": 24}
    point(**gpus, tensor_parallel=8, pipeline_parallel=3).check()
    assert point(**gpus, tensor_parallel=8).pipeline_degree == 3
    assert point(**gpus, pipeline_parallel=3).tensor_degree == 8
    assert point(**gpus).tensor_degree == 24
    with pytest.raises(InvalidRequest, match="tensor_parallel=5"):
        point(**gpus, tensor_parallel=5).check()


def test_learned_positions_end():
    with pytest.raises(InvalidRequest, match="2048 learned positions"):
        point(model=load_model("mt-nlg-530b"), input_len=2048).check()


def test_dtypes_follow_the_weights_where_those_are_floats():
    assert point(weight_dtype="float16").act_dtype == "float16"
    assert point(weight_dtype="int8").act_dtype == "bfloat16"
    assert point(act_dtype="float32").kv_dtype == "float32"


@pytest.mark.parametrize("hw", ["tpu-v4", "a100-80gb", "cpu"])
def test_the_first_token_decides_the_steps_and_the_chip_does_not(hw):
    asked = {"hw": hw, "num_chips": 8, "input_len": 60, "output_len": 20}
    steps = {
        (phase, first): point(phase=phase, first_token=first, **asked).decode_steps
        for phase in ("prefill", "decode", "generate")
        for first in ("auto", "decode", "prefill")
    }
    assert {first: steps["generate", first] for first in ("auto", "decode", "prefill")} == {
        "auto": 20,
        "decode": 20,
        "prefill": 19,
    }
    assert {steps["decode", first] for first in ("auto", "decode", "prefill")} == {20}
    assert {steps["prefill", first] for first in ("auto", "decode", "prefill")} == {0}


def test_only_generate_points_have_a_first_token():
    for phase in ("prefill", "decode"):
        assert point(phase=phase, first_token="prefill") == point(phase=phase)
        assert point(phase=phase).axes()["first_token"] is None
    one, other = (point(phase="generate", first_token=first) for first in ("decode", "prefill"))
    assert one.fingerprint("a") != other.fingerprint("a")


def test_tokens_are_those_of_the_phase():
    asked = {"phase": "generate", "batch_size": 4, "input_len": 60, "output_len": 20}
    assert {point(**asked, first_token=first).tokens for first in ("decode", "prefill")} == {4 * 80}
    assert point(phase="prefill", batch_size=4, input_len=60).tokens == 4 * 60


def test_a_fingerprint_holds_every_value_and_what_is_asked():
    one = point()
    assert one.fingerprint("a") == point().fingerprint("a")
    others = [
        point(batch_size=128),
        point(model=replace(one.model, num_layers=8)),
        point(hw=replace(one.chip, hbm_bytes_per_s=1.3e12)),
        point(ffn_layout="ws_2d"),
    ]
    assert len({each.fingerprint("a") for each in [one, *others]} | {one.fingerprint("b")}) == 6


def test_a_new_field_at_its_default_changes_no_fingerprint():
    @dataclass(frozen=True, kw_only=True)
    class Wider(Point):
        another: str = "none"

    one = point()
    stated = {field.name: getattr(one, field.name) for field in fields(one)}
    assert Wider(**stated).fingerprint("a") == one.fingerprint("a")
    assert Wider(**stated, another="half").fingerprint("a") != one.fingerprint("a")


def test_a_fingerprint_does_not_hold_how_a_number_was_written():
    one = point()
    same = point(hw=replace(one.chip, hbm_bytes=float(one.chip.hbm_bytes), sources={}, device_names=()))
    assert one.fingerprint("a") == same.fingerprint("a")


@given(batch=st.integers(1, 4096), shape=st.tuples(*[st.sampled_from([1, 2, 4, 8])] * 3))
def test_attention_takes_the_most_shards_that_divide_the_batch(batch, shape):
    axes = attention_batch_axes(batch, shape)
    dividing = [a for a in ("xyz", "yz", "z") if axes_size(a, shape) > 1 and batch % axes_size(a, shape) == 0]
    assert axes == (dividing[0] if dividing else None)


@pytest.mark.parametrize("engine", ["analytic", "compiled", "jax", "torch", "vllm", "published"])
def test_an_engine_of_batches_serves_no_load(engine):
    with pytest.raises(InvalidRequest, match=f"phase=serve: is a server under load and engine={engine} runs batches"):
        point(engine=engine, phase="serve").check()


def test_an_imported_server_may_have_no_one_batch_or_length():
    served = point(engine="imported", phase="serve", batch_size=0, input_len=0, output_len=0)
    served.check()
    assert (served.decode_steps, served.axes()["first_token"]) == (0, None)


AWQ = {"model": "llama-3-70b", "hw": "h100-80gb", "num_chips": 8, "weight_dtype": "int4", "weight_group_size": 128}


def test_groups_leave_the_head_in_sixteen_bits():
    assert point(**AWQ).head_format == point(**AWQ).head_dtype == "bfloat16"
    assert point(**AWQ, act_dtype="float16").head_format == "float16"
    assert point(**AWQ, head_dtype="int4").head_format == "int4"
    assert point(weight_dtype="int8").head_dtype is None
    assert point(weight_dtype="int8").head_format == "int8"


def test_a_head_in_the_format_of_the_weights_is_no_other_point():
    plain, stated = point(weight_dtype="int8"), point(weight_dtype="int8", head_dtype="int8")
    assert plain == stated
    assert plain.fingerprint("") == stated.fingerprint("") != point(head_dtype="int8").fingerprint("")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"weight_dtype": "bfloat16"}, "use weight_dtype=int8 or int4"),
        ({"weight_dtype": "float8_e4m3"}, "use weight_dtype=int8 or int4"),
        ({"weight_group_size": 96}, "d_model = 8192"),
        ({"weight_group_size": 2**31 - 1}, "d_model = 8192"),  # its divisors are found at once, not one by one
        # 28672/16 = 1792 hidden columns on a rank are 7 groups of 256, and 3.5 of 512.
        ({"weight_group_size": 512, "num_chips": 16, "tensor_parallel": 16}, "d_ff = 1792 on each of"),
    ],
)
def test_groups_are_of_integers_and_whole_on_every_rank(changes, word):
    with pytest.raises(InvalidRequest, match="weight_group_size") as refused:
        point(**{**AWQ, **changes}).check()
    assert word in str(refused.value)
    point(**{**AWQ, "weight_group_size": 256, "num_chips": 16}).check()


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("columns:.50", "columns:0.5"),
        ("2:4+columns:0.5+heads:0.25", "heads:0.25+columns:0.5+2:4"),
        ("layers:0", "none"),
        ("columns:0+2:4", "2:4"),
    ],
)
def test_pruning_is_one_point_however_it_is_written(text, one):
    assert point(pruning=text) == point(pruning=one)

"""What a measured row says that it ran: lowered without weights, and the same whatever its source is called."""

import jax
import pytest
from test_jax_engine import point

from engines.core.stablehlo import nameless
from engines.jax.engine import JaxEngine

pytestmark = [pytest.mark.usefixtures("plainly_prepared", "small_peaks"), pytest.mark.slow]

CASES = {
    "generate": ({}, {}),
    "one chip": ({"num_chips": 1}, {}),
    "oneway over 8": ({"ffn_layout": "ws_2d", "collectives": "oneway"}, {}),
    "by the compiler": ({"partitioner": "gspmd", "phase": "decode"}, {}),
    "int8": ({"weight_dtype": "int8", "phase": "decode"}, {}),
    "int4": ({"weight_dtype": "int4", "phase": "prefill"}, {}),
    "chunks after a prefix": ({"phase": "prefill"}, {"prefill_chunk": 2, "shared_prefix": 2}),
    "packed": ({"input_len": 16, "lengths": "uniform", "padding": "packed"}, {}),
    "without a prompt": ({"phase": "decode", "input_len": 0}, {}),
    "sampled": ({"phase": "decode"}, {"temperature": 0.7, "top_k": 5}),
}
QUICK = ("one chip", "int4", "chunks after a prefix", "packed", "without a prompt")


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize(
    "case", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in CASES]
)
def test_what_is_lowered_without_weights_is_what_ran(case):
    changes, settings = CASES[case]
    engine = JaxEngine(**settings)
    program = engine.prepare(point(**changes))
    assert program.facts().program_id == engine.program_id(point(**changes))
    program.close()


def test_points_and_settings_that_run_another_program_are_told_apart():
    one = point(phase="decode")
    asked = [(one, {}), (point(phase="decode", batch_size=16), {}), (point(phase="prefill"), {})]
    asked += [(point(phase="decode", collectives="oneway"), {}), (one, {"temperature": 0.5})]
    ids = [JaxEngine(**settings).program_id(each) for each, settings in asked]
    assert len(set(ids)) == len(ids)


def test_the_number_of_virtual_devices_is_no_part_of_it_and_other_flags_are(monkeypatch):
    one = point(phase="prefill")
    before = JaxEngine().program_id(one)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=64")
    assert JaxEngine().program_id(one) == before
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert JaxEngine().program_id(one) != before


def lowered(outer, inner, key, scale):
    def one(x):
        return scale * x

    def two(x):
        return {key: jax.jit(one)(x) + jax.numpy.where(x > 0, x, 0)}

    one.__name__, two.__name__ = inner, outer
    return jax.jit(two).lower(jax.ShapeDtypeStruct((4,), "float32")).as_text()


def test_a_renamed_function_or_result_is_the_same_program():
    one, renamed = lowered("decode", "step", "cache", 2.0), lowered("generate", "forward", "kept", 2.0)
    assert one != renamed
    assert nameless(one) == nameless(renamed)
    assert nameless(one) != nameless(lowered("decode", "step", "cache", 3.0))

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from builders.points import point as build_point

from bench.sweep.catalog import load_group, load_model
from engines.core.engine import Runner
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.jax.bfloat16 import Bfloat16
from engines.jax.engine import JaxEngine
from engines.weights.lengths import draw_lengths
from engines.weights.logits import kl_divergence, relative_error
from engines.weights.random import Tensor

point = partial(
    build_point,
    model="tiny",
    hw="cpu",
    engine="jax",
    phase="generate",
    num_chips=8,
    batch_size=8,
    input_len=6,
    output_len=3,
    weight_dtype="float32",
)


pytestmark = [pytest.mark.usefixtures("plainly_prepared", "small_peaks"), pytest.mark.slow]


def engine() -> JaxEngine:
    settings = load_group("engine", "jax")
    settings.pop("_target_")
    return JaxEngine(**settings)


def test_is_a_runner_that_takes_its_configuration():
    assert isinstance(engine(), Runner)
    assert engine().settings.allowed_error("float32") == 1e-5


@pytest.mark.parametrize(("phase", "stages"), [("prefill", ["prefill"]), ("decode", ["decode"])])
def test_stages_of_a_phase(phase, stages):
    program = engine().prepare(point(phase=phase))
    assert [stage.name for stage in program.stages] == stages
    assert program.compile_s > 0
    assert program.verify().ok
    program.close()


def test_generate_repeats_verifies_and_knows_its_facts():
    program = engine().prepare(point())
    assert [stage.name for stage in program.stages] == ["prefill", "decode"]
    outputs = []
    for _ in range(2):
        for stage in program.stages:
            stage.run()
        outputs.append(np.asarray(program.decoded[0]))
    assert np.array_equal(*outputs)
    checked = program.verify()
    assert checked.ok
    assert 0 < checked.max_relative_error < 1e-5
    assert 0 <= checked.kl_divergence < 1e-9
    facts = program.facts()
    # F/E = 4 exceeds √8: 1D; one key/value head and 8 sequences for 8 chips: over the batch.
    layout = {"mesh_shape": [2, 2, 2], "ffn_layout": "ws_1d", "attn_sharding": "batch", "collectives": "plain"}
    assert facts.resolved == {"runtime": "xla", **layout}
    # k and v × 4 layers × 8 sequences × 9 positions × 1 head × 32, 4 bytes, an eighth a chip.
    assert facts.kv_cache_bytes == 2 * 4 * 8 * 9 * 32 * 4 / 8
    # A chip holds an eighth of every matrix; the norms are small.
    assert facts.weights_bytes == pytest.approx(load_model("tiny").params * 4 / 8, rel=0.01)
    assert facts.peak_hbm_bytes > facts.weights_bytes + facts.kv_cache_bytes
    assert facts.peak_flops_per_s > 0
    assert facts.hbm_bytes_per_s > 0
    assert facts.peak_source == "measured matmul and copy in this process"
    assert facts.versions["jax"] == jax.__version__
    program.close()


def test_one_chip_has_no_layout():
    program = engine().prepare(point(num_chips=1, batch_size=2))
    resolved = program.facts().resolved
    layout = {"mesh_shape": [1, 1, 1], "ffn_layout": None, "attn_sharding": None, "collectives": "plain"}
    assert resolved == {"runtime": "xla", **layout}
    assert program.verify().ok
    program.close()


def test_a_prompt_in_chunks_after_a_prefix_that_all_sequences_share():
    settings = {"shared_prefix": 4, "prefill_chunk": 2, "attention": "blockwise", "attention_block": 2}
    runner = JaxEngine(**settings)
    program = runner.prepare(point())
    assert program.verify().ok
    facts = program.facts()
    # Of 6 prompt tokens 4 are read once: 4 + 8 · 2, and 8 · 3 are generated.
    assert (facts.cached_tokens, facts.processed_tokens) == (20, 44)
    # k and v × 4 layers × 1 head × 32, 4 bytes: one sequence of 5 own positions a chip, and the prefix.
    assert facts.kv_cache_bytes == 2 * 4 * 32 * 4 * (5 + 4)
    assert {name: facts.details[name] for name in settings} == settings
    program.close()


@pytest.mark.parametrize("packed", [False, True])
def test_prompts_of_different_lengths(packed):
    lengths = {"lengths": "lognormal", "padding": "packed" if packed else "padded"}
    asked = point(phase="prefill", input_len=24, ffn_layout="ws_2d", attn_sharding="heads", **lengths)
    program = JaxEngine().prepare(asked)
    assert program.verify().ok
    facts, lengths = program.facts(), draw_lengths("lognormal", 8, 24, 0)
    assert len(set(lengths)) > 3
    # A chip's scores are of all sequences, so all lie in one row.
    taken = lengths.sum() if packed else 8 * 24
    assert facts.processed_tokens == facts.details["real_tokens"] == lengths.sum()
    assert (facts.details["padded_tokens"], facts.details["rows_tokens"]) == (8 * 24, taken)
    assert facts.details["padding_removed"] == 1 - taken / (8 * 24)
    program.close()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lengths": "uniform"}, "engine.lengths=uniform: is a key of the point now; use lengths=uniform"),
        ({"packed": True}, "engine.packed=true: is a key of the point now; use padding=packed"),
        ({"shared_prefix": 6}, "engine.shared_prefix=6: .*input_len=6"),
        ({"prefill_chunk": 0}, "engine.prefill_chunk=0"),
        ({"prefill_chunk": "all"}, "engine.prefill_chunk=all: must be an integer ≥ 1"),
        ({"attention": "flash"}, "engine.attention=flash"),
    ],
)
def test_a_prompt_that_cannot_be_read_so_is_refused_before_memory_is_taken(settings, says):
    before = len(jax.live_arrays())
    with pytest.raises(InvalidRequest, match=says):
        JaxEngine(**settings).prepare(point())
    assert len(jax.live_arrays()) <= before  # those of a former test may be collected meanwhile


@pytest.mark.parametrize(
    ("settings", "changes", "says"),
    [
        ({"prefill_chunk": 2}, {}, "engine.prefill_chunk=2: .*lengths=uniform"),
        ({"shared_prefix": 2}, {}, "engine.shared_prefix=2: .*lengths=uniform"),
        ({}, {"padding": "packed", "partitioner": "gspmd"}, "padding=packed: .*use partitioner=manual"),
        ({}, {"attn_sharding": "sequence"}, "lengths=uniform: attn_sharding=sequence .*use attn_sharding=heads"),
        ({}, {"lengths": "equal", "padding": "packed"}, "padding=packed: .*lengths=equal; give lengths=uniform"),
        ({}, {"phase": "decode", "input_len": 0}, "lengths=uniform: .*input_len=0"),
    ],
)
def test_what_prompts_of_different_lengths_do_not_go_with(settings, changes, says):
    with pytest.raises(ShardbenchError, match=says):
        JaxEngine(**settings).prepare(point(**{"lengths": "uniform", **changes}))


def test_decode_without_a_prompt():
    program = engine().prepare(point(phase="decode", input_len=0, batch_size=1))
    assert program.verify().ok
    program.close()


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize(
    ("formats", "tolerance", "kv_bytes"),
    [
        ({"weight_dtype": "int8"}, 0.08, 32 * 2),
        ({"weight_dtype": "int8", "act_dtype": "int8"}, 0.08, 32 + 4),
        ({"weight_dtype": "int4", "kv_dtype": "float8_e4m3"}, 0.4, 32 + 4),
    ],
)
def test_quantised_points_report_what_they_cost_in_quality(formats, tolerance, kv_bytes):
    program = engine().prepare(point(**formats))
    checked = program.verify()
    assert checked.ok
    assert checked.tolerance == tolerance
    for error in (checked.max_relative_error, checked.bf16_max_relative_error):
        assert 1e-3 < error < tolerance
    for divergence in (checked.kl_divergence, checked.bf16_kl_divergence):
        assert divergence > 1e-6
    # k and v × 4 layers × 8 sequences × 9 positions × 1 head of 32 and its scale, an eighth a chip.
    assert program.facts().kv_cache_bytes == 2 * 4 * 8 * 9 * kv_bytes / 8
    program.close()


def test_what_is_not_quantised_is_compared_with_float32_alone():
    program = engine().prepare(point(num_chips=1, batch_size=1, weight_dtype="bfloat16"))
    checked = program.verify()
    assert checked.ok
    assert checked.bf16_max_relative_error is None
    assert checked.bf16_kl_divergence is None
    program.close()


def test_bfloat16_weights_by_hand():
    class Given:
        def read(self, tensor, index):
            # 8 bits: 1 + 2^-8 lies between 1 and 1 + 2^-7 and goes to the even one.
            return np.asarray([1 + 2**-8, 1 + 2**-7, 3.0], np.float32)[index[0]]

    read = Bfloat16(Given()).read(Tensor("any", (3,), 1.0), [slice(0, 3)])
    assert read.dtype == np.float32
    assert read.tolist() == [1.0, 1 + 2**-7, 3.0]


def test_relative_error_by_hand():
    assert relative_error(np.asarray([2.0, -4.0]), np.asarray([2.5, -4.0])) == 0.125


def test_a_wrong_output_is_not_verified():
    program = engine().prepare(point())
    (layers,) = program.place.weights.layers
    fused = layers.fused
    wrong = replace(fused, outputs=replace(fused.outputs, values=fused.outputs.values * 1.01))
    program.place.weights = replace(program.place.weights, layers=(replace(layers, fused=wrong),))
    checked = program.verify()
    assert not checked.ok
    assert checked.max_relative_error > checked.tolerance
    program.close()


def test_kl_divergence_by_hand():
    # p = (1/2, 1/2), q = (1/4, 3/4): ½·ln 2 + ½·ln(2/3) = ½·ln(4/3).
    p, q = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]]) + 3.0
    assert kl_divergence(p, q) == pytest.approx(0.5 * np.log(4 / 3))


@pytest.mark.parametrize("weight_dtype", ["bfloat16", "int8"])
def test_narrow_weights_are_widened_one_layer_at_a_time(weight_dtype):
    program = engine().prepare(point(num_chips=1, weight_dtype=weight_dtype, phase="decode"))
    widened = 4 * load_model("tiny").params
    assert program.programs.compiled["decode"].memory_analysis().temp_size_in_bytes < widened / 2
    program.close()

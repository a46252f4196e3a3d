"""Matrices as a number format holds them: by hand, against the arrays that run, and what they cost in quality."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.plans import mesh_of, plan_of
from builders.points import point
from partitioned_case import error_of, reference, run

from engines.jax.quality import quality_of
from engines.jax.settings import Settings
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.programs import load_parameters, make_prefill
from engines.transformer.reference import reference_logits
from engines.weights.random import prompt, tensors, values
from engines.weights.rounded import RoundedWeights, rounded

BYTES = small_model(block="serial", norm="rmsnorm", norms_per_layer=2, num_kv_heads=2, vocab_size=256, d_ff=64)


def test_formats_by_hand():
    column = np.asarray([[7.0], [-3.4], [0.6], [0.0]], np.float32)
    assert rounded(column, (0,), "int4").ravel().tolist() == [7, -3, 1, 0]
    # int8: 127 steps up to 7, and −3.4 is −61.7 of them.
    assert rounded(column, (0,), "int8").ravel() == pytest.approx([7, -62 * 7 / 127, 11 * 7 / 127, 0])
    # Groups of two: 15 steps from −3.4 to 7 are 0.69140625 in 16 bits, of which 7 is 10 and −3.4 is −5.
    assert rounded(column, (0,), "int4", 2).ravel()[:2].tolist() == [6.9140625, -3.45703125]
    assert rounded(column, (0,), "int4", 2).ravel()[2:] == pytest.approx([0.6, 0], rel=2.0**-9)
    # A scale for each output: those of rows of a table are the other axis.
    table = np.asarray([[7.0, 0.4], [70.0, 4.0]], np.float32)
    assert rounded(table, (1,), "int4").tolist() == [[7, 0], [70, 0]]
    assert rounded(table, (0,), "int4").tolist() == [[10, pytest.approx(4 / 7)], [70, 4]]
    assert rounded(column, (0,), "float32") is column


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_are_rounded_to_the_nearest(dtype):
    matrix = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    expected = np.asarray(jnp.asarray(matrix).astype(dtype).astype(jnp.float32))
    assert np.array_equal(rounded(matrix, (0,), dtype), expected)


@pytest.mark.parametrize(
    ("dtype", "size", "worst"),
    [("int8", None, 1 / 254), ("int4", None, 1 / 14), ("int4", 4, 2 / 15), ("float8_e4m3", None, 1 / 16),
     ("mxfp4", 32, 1 / 4)],
)  # fmt: skip
def test_the_error_is_half_a_step(dtype, size, worst):
    """Of the largest value that shares the scale; a group's range may be twice that, and its zero point is rounded."""
    matrix = np.random.default_rng(1).normal(size=(3, 64, 5)).astype(np.float32)
    error = np.abs(rounded(matrix, (1,), dtype, size) - matrix).max(1) / np.abs(matrix).max(1)
    assert 0.1 * worst < error.max() <= worst * 1.02


ASKED = {"engine": "jax", "num_chips": 1, "phase": "decode", "input_len": 4, "output_len": 2}
EXACT = {"act_dtype": "float32", "kv_dtype": "float32", "batch_size": 2}


@pytest.mark.parametrize(
    ("formats", "nearest"),
    [
        ({"weight_dtype": "int8"}, 1e-5),
        # Scales of groups have 16 bits, and those of q another factor: softmax's, which is folded in before.
        ({"weight_dtype": "int4", "weight_group_size": 4, "head_dtype": "float32"}, 0.02),
    ],
)
def test_they_are_the_weights_that_the_timed_program_runs(formats, nearest):
    """A prompt's logits are those of the float32 reference of the rounded weights, and not of the exact ones."""
    model, tokens = BYTES, prompt(BYTES, 2, 5, 0)
    plan = plan_of(model, (1, 1, 1), **EXACT, **formats)
    mesh = mesh_of(plan.mesh_shape)
    program = make_prefill(plan, mesh)
    _, scores, _ = run(program, load_parameters(plan, mesh, 0), make_cache(plan, mesh), tokens)
    output = np.asarray(scores)[..., : model.vocab_size][None]
    asked = point(model, "cpu", **ASKED, **EXACT, **formats)
    held = reference_logits(model, tokens, [4], RoundedWeights(asked, 0), plan.cache_len)
    exact = reference(model, tokens, (4,), plan.cache_len)
    assert error_of(held, output) < nearest
    assert error_of(exact, output) > 5 * nearest


def test_quality_falls_with_the_bits():
    def of(dtype, **keys):
        asked = point(BYTES, "cpu", **ASKED, batch_size=1, weight_dtype=dtype, pruning="layers:0.5", **keys)
        return quality_of(asked, replace(asked, pruning="none"), Settings(), 0, 0)

    exact, eight, grouped, four = of("float32"), of("int8"), of("int4", weight_group_size=4), of("int4")
    assert (exact.kl, exact.agreement) == (pytest.approx(0, abs=1e-12), 1.0)
    assert 0 < eight.kl < 1e-3 < grouped.kl < four.kl
    assert eight.agreement > four.agreement


def test_what_is_no_matrix_stays():
    asked = point(MODELS["gpt"], "cpu", **ASKED, batch_size=1, weight_dtype="int4")
    held, specs = RoundedWeights(asked, 0), tensors(MODELS["gpt"])
    same = {name for name, spec in specs.items() if np.array_equal(values(spec, 0), values(spec, held))}
    assert {name for name in specs if "bias" in name or "norm" in name} <= same
    assert not any(name.rpartition(".")[2] in ("q", "o", "wo", "wi", "embedding") for name in same)

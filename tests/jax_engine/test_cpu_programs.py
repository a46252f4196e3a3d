"""What XLA makes of the engine's programs on one device of a CPU: matrices are multiplied where they lie."""

import re

import jax
import jax.numpy as jnp
import pytest
from test_jax_engine import point

from engines.core.errors import InvalidRequest
from engines.jax.engine import JaxEngine
from engines.jax.settings import Settings

pytestmark = [pytest.mark.usefixtures("plainly_prepared", "small_peaks"), pytest.mark.slow]

SINGLE = {"num_chips": 1, "batch_size": 1}


def converts_rows_of_bfloat16():
    """Whether this machine's matmuls of several rows in bfloat16 are in float32."""
    x, w = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((4, 64), (64, 128)))
    product = jax.jit(lambda x, w: jnp.matmul(x, w, preferred_element_type=jnp.float32))
    return "f32[64,128]" in product.lower(x, w).compile().as_text()


def made_anew(program, name):
    """The matrices of a layer that a compiled program makes again, in whatever format: their shapes."""
    layers = program.place.weights.layers
    each = layers[0] if isinstance(layers, tuple) else layers
    shapes = {leaf.shape[1:] for leaf in jax.tree.leaves(each) if leaf.ndim == 3}
    assert len(shapes) >= 2
    text = program.programs.compiled[name].as_text()
    written = re.findall(r"= \w+\[(?:1,)?(\d+),(\d+)\]\S* (?:fusion|copy|convert|dynamic-slice)\(", text)
    return shapes & {tuple(map(int, sizes)) for sizes in written}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_matrix_of_a_layer_is_copied_or_converted(dtype):
    if dtype == "bfloat16" and converts_rows_of_bfloat16():
        pytest.skip("this CPU has no matmul in bfloat16")
    for settings, copied in (({}, False), ({"unroll_layers": False}, True)):
        program = JaxEngine(**settings).prepare(point(**SINGLE, weight_dtype=dtype))
        assert program.verify().ok
        assert program.facts().details["unrolled"] is not copied
        for name in ("prefill", "decode"):
            assert bool(made_anew(program, name)) is copied, (name, settings)
        program.close()


@pytest.mark.parametrize(
    ("changes", "settings", "unrolled"),
    [
        ({}, {}, True),
        ({"weight_dtype": "bfloat16", "act_dtype": "bfloat16"}, {}, True),
        ({"weight_dtype": "int8"}, {}, False),  # converted, one layer at a time
        ({"weight_dtype": "bfloat16", "act_dtype": "float32"}, {}, False),
        ({"num_chips": 8}, {}, False),
        ({"num_chips": 8}, {"unroll_layers": True}, True),
        ({}, {"unroll_layers": False}, False),
        ({}, {"shared_prefix": 2}, False),
        ({"hw": "h200", "weight_dtype": "bfloat16"}, {}, False),
    ],
)
def test_layers_are_unrolled_where_that_saves_a_copy(changes, settings, unrolled):
    assert Settings(**settings).unrolls(point(**{**SINGLE, **changes})) is unrolled


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_unrolling_is_true_false_or_auto(value):
    with pytest.raises(InvalidRequest, match=r"engine\.unroll_layers=.*: must be true, false or auto"):
        Settings(unroll_layers=value)

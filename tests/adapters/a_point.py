"""A point that an external program answers."""

from functools import partial

from builders.points import point as build_point

point = partial(
    build_point,
    model="gpt-20b",
    hw="a100-80gb",
    engine="fastertransformer",
    phase="generate",
    num_chips=2,
    batch_size=3,
    input_len=20,
    output_len=8,
    weight_dtype="float16",
)

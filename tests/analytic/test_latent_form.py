"""The closed forms and the partitioned Transformer choose the form of latent attention by one law."""

import numpy as np
from builders.points import point
from hypothesis import given
from hypothesis import strategies as st

from engines.analytic.attention import absorbs
from engines.analytic.grid import grid_of
from engines.transformer.partition.resolve import plan_of


@given(
    form=st.sampled_from(["auto", "absorbed", "expanded"]), time=st.integers(1, 3000), before=st.integers(0, 100_000)
)
def test_they_agree_for_every_length(form, time, before):
    keys = {"num_chips": 8, "phase": "decode", "batch_size": 8, "input_len": 8, "output_len": 8}
    asked = point(model="deepseek-v3", hw="tpu-v5p", engine="compiled", latent_attention=form, **keys)
    plan = plan_of(asked, mesh_shape=(2, 2, 2))
    stated = absorbs(grid_of([asked]), np.full(1, float(time)), np.full(1, float(time + before)))
    assert bool(stated[0]) == plan.absorbs(time, time + before)

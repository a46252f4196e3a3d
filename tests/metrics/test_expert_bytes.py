"""The bytes of experts that a step must read: those of the experts that its tokens hit."""

from dataclasses import replace

import pytest
from builders.models import moe_model
from builders.points import point

from bench.rows.min_hbm_bytes import min_hbm_bytes


@pytest.mark.parametrize(("batch", "hit"), [(1, 2.0), (2, 8 * (1 - 0.75**2)), (1000, 8.0)])
def test_a_step_reads_the_experts_that_its_tokens_hit(batch: int, hit: float) -> None:
    model = moe_model(num_layers=2, dense_layers=1)
    asked = point(
        model, "tpu-v4", num_chips=1, engine="jax", phase="decode", batch_size=batch, input_len=1, output_len=1
    )
    asked = replace(asked, weight_dtype="float32", act_dtype="float32", kv_dtype="float32")
    every = 4 * (model.layers_params + model.final_norm_params + model.head_params)
    one = 4 * 3 * 32 * 64
    cache = batch * model.kv_elements_per_token() * 4
    assert min_hbm_bytes(asked) == pytest.approx(every - (8 - hit) * one + cache, rel=1e-6)


def test_a_prompt_hits_more_experts_than_a_step_and_skew_hits_fewer() -> None:
    model = moe_model()
    prompt = point(model, "tpu-v4", num_chips=1, engine="jax", phase="prefill", batch_size=1, input_len=4, output_len=0)
    step = point(model, "tpu-v4", num_chips=1, engine="jax", phase="decode", batch_size=1, input_len=4, output_len=1)
    skewed = point(
        model,
        "tpu-v4",
        num_chips=1,
        engine="jax",
        phase="prefill",
        batch_size=1,
        input_len=4,
        output_len=0,
        routing_skew=2.0,
    )
    assert min_hbm_bytes(prompt) > min_hbm_bytes(skewed) > min_hbm_bytes(step) / 2

"""NeMo Megatron's partitioning in JAX: tensor-parallel ranks, pipeline stages and micro-batches."""

import pytest
from builders.points import point as build_point

from engines.core.errors import ShardbenchError
from engines.jax.engine import JaxEngine

pytestmark = pytest.mark.usefixtures("plainly_prepared", "small_peaks")


def asked(model, tensor, pipeline, **changes):
    values = {
        **{"model": model, "hw": "cpu", "engine": "jax", "num_chips": tensor * pipeline, "phase": "generate"},
        **{"tensor_parallel": tensor, "pipeline_parallel": pipeline, "batch_size": 4, "input_len": 5},
        **{"output_len": 3, "weight_dtype": "float32"},
    }
    return build_point(**{**values, **changes})


@pytest.mark.parametrize(
    ("model", "tensor", "pipeline", "parts"), [("tiny", 2, 2, None), ("tiny-gpt", 2, 4, 2), ("tiny", 1, 2, 4)]
)
@pytest.mark.thorough(every=2)
def test_stages_give_the_logits_of_the_model(model, tensor, pipeline, parts):
    """As many micro-batches as stages, fewer (a step then waits for its token), and more."""
    program = JaxEngine().prepare(asked(model, tensor, pipeline, micro_batches=parts))
    assert program.verify().ok
    facts = program.facts()
    assert facts.resolved.get("micro_batches", parts) == (parts or pipeline)
    assert facts.cached_tokens == 4 * 5
    # A stage's cache has its own layers, of all sequences: 4 layers, as many heads as the model's over the ranks.
    layers, one = 4 // pipeline, 32 if model == "tiny" else 0
    if one:
        assert facts.kv_cache_bytes == 2 * layers * 4 * one * 8 * 4
    program.close()


def test_ranks_without_stages_are_the_layout_of_one_dimension():
    facts = JaxEngine().prepare(asked("tiny", 2, 1, sequence_parallel="norms", phase="prefill")).facts()
    assert facts.resolved["ffn_layout"] == "ws_1d"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 5}, "batch_size=5: does not split into 2 micro-batches"),
        ({"pipeline_parallel": 3, "num_chips": 6, "batch_size": 6}, "pipeline_parallel=3: .*a divisor of the layers"),
        ({"ffn_layout": "ws_2d"}, "ffn_layout=ws_2d: .*runs ffn_layout=ws_1d alone"),
        ({"lengths": "uniform"}, "lengths=uniform: .*leave it out"),
        ({"micro_batches": 5}, "micro_batches=5: .*batch_size=4"),
        ({"pipeline_parallel": 1, "num_chips": 2, "micro_batches": 2}, "micro_batches=2: is about a pipeline"),
        ({"tensor_parallel": 1, "num_chips": 2, "sequence_parallel": "norms"}, "sequence_parallel=norms: .*tensor_par"),
    ],
)
def test_what_stages_refuse(changes, says):
    with pytest.raises(ShardbenchError, match=says):
        JaxEngine().prepare(asked("tiny", 2, 2, **changes))

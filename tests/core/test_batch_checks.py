"""Why keys about prompts of different lengths and micro-batches are refused beside methods of decoding."""

from itertools import product

import pytest
from builders.points import point

from engines.core.errors import InvalidRequest

BATCHES = ({"lengths": "lognormal"}, {"pipeline_parallel": 2, "tensor_parallel": 4, "micro_batches": 2})
METHODS = (
    {"speculative": "ngram", "acceptance_rate": 0.5},
    {"exit_threshold": 0.9, "exit_rate": 0.2},
)


@pytest.mark.parametrize(("batch", "method"), list(product(BATCHES, METHODS)))
def test_a_method_without_a_program_for_such_a_batch_says_that(batch, method):
    asked = {"engine": "analytic", "num_chips": 8, "phase": "decode", "batch_size": 8, "input_len": 64, "output_len": 8}
    (key, value), (other, chosen) = list(batch.items())[-1], next(iter(method.items()))
    hw = "h100-80gb" if "micro_batches" in batch else "tpu-v4"
    reason = f"{key}={value}: no engine runs {other}={chosen} "
    with pytest.raises(InvalidRequest, match=reason) as refused:
        point("tiny", hw, **asked, **batch, **method).check()
    assert (f"{other}=none" if other == "speculative" else f"leave {other} out") in str(refused.value)

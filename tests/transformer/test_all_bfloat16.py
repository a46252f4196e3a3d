import pytest
from combination_case import COMBINATIONS, PREFILLED, combined, error

pytestmark = pytest.mark.slow
FORMATS = {"weight_dtype": "bfloat16", "act_dtype": "bfloat16", "kv_dtype": "bfloat16"}


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_every_combination_errs_by_its_precision(combination):
    assert 1e-4 < error(combined(*combination, **FORMATS), prefill=combination in PREFILLED) < 0.03

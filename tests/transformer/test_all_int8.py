import pytest
from combination_case import BLOCKS, COMBINATIONS, PREFILLED, combined, error

pytestmark = pytest.mark.slow
FORMATS = {"weight_dtype": "int8", "act_dtype": "float32", "kv_dtype": "float32"}


@pytest.fixture(scope="module")
def rounding():
    """What int8 weights err on one way of cutting them, by block and whether it is the prefill's."""
    return {
        (block, prefill): error(combined("ws_1d", "heads", block, "plain", **FORMATS), prefill=prefill)
        for block in BLOCKS
        for prefill in (True, False)
    }


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_every_combination_errs_by_the_same_rounding_of_the_weights(rounding, combination):
    prefill = combination not in PREFILLED
    found = error(combined(*combination, **FORMATS), prefill=prefill)
    assert found == pytest.approx(rounding[combination[2], prefill], abs=1e-5)
    assert 1e-4 < found < 0.03

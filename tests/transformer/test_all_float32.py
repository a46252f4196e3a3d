import pytest
from combination_case import COMBINATIONS, PREFILLED, combined, error

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_every_combination_equals_the_reference(combination):
    assert error(combined(*combination), prefill=combination in PREFILLED) < 1e-5

"""The reference's logits from a checkpoint equal those of transformers, for every case of every family."""

import numpy as np
import pytest
from checkpoint_cases import CASES, TIME, expected

from engines.transformer.reference import reference_logits
from engines.weights.checkpoint.describe import model_of
from engines.weights.checkpoint.source import Checkpoint

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


def difference(output, wanted):
    """max|output − wanted| / max|wanted|."""
    assert np.abs(wanted).max() > 0.5
    return float(np.abs(output - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("name", CASES)
def test_the_reference_equals_transformers_at_every_position(name, folders):
    tokens, wanted = expected(name, folders / name)
    model = model_of(folders / name)
    output = reference_logits(model, tokens, list(range(TIME)), Checkpoint(folders / name, model))
    assert difference(output.transpose(1, 0, 2), wanted) < 1e-5

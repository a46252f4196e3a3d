"""Points and grids that the tests of the analytic engine share."""

from collections.abc import Callable
from functools import partial

import pytest
from builders.points import point

from engines.core.point import Point


@pytest.fixture
def make_point() -> Callable[..., Point]:
    """A point from names: PaLM 540B decode at batch 64 on 64 TPU v4 unless told otherwise."""

    return partial(
        point,
        model="palm-540b",
        hw="tpu-v4",
        engine="analytic",
        phase="decode",
        num_chips=64,
        batch_size=64,
        input_len=1984,
        output_len=64,
        collectives="plain",
    )

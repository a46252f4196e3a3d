"""Points and grids that the tests of the analytic engine share."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.sweep.catalog import load_chip, load_model
from engines.core.point import Point


@pytest.fixture
def make_point() -> Callable[..., Point]:
    """A point from names: PaLM 540B decode at batch 64 on 64 TPU v4 unless told otherwise."""

    def make(**keys: Any) -> Point:
        asked = {
            "model": "palm-540b",
            "hw": "tpu-v4",
            "phase": "decode",
            "num_chips": 64,
            "batch_size": 64,
            "input_len": 1984,
            "output_len": 64,
            "collectives": "plain",
            **keys,
        }
        model, chip = asked.pop("model"), asked.pop("hw")
        return Point(
            model=load_model(model) if isinstance(model, str) else model,
            chip=load_chip(chip) if isinstance(chip, str) else chip,
            engine="analytic",
            **asked,
        )

    return make

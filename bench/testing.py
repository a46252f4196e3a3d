"""A pytest plugin: how long a program takes on chips that are not there, against what it took before.

Installed with shardbench, it gives two fixtures:

    def test_train_step_is_no_slower(estimate, before):
        now = estimate(train_step, params, batch, hw="tpu-v5e", num_chips=16)
        assert now.step_time_s < 1.02 * before(now)

``estimate`` is :func:`bench.estimate.estimate`. ``before`` gives the time that is written in the file
``.shardbench-times.json`` beside the tests' root; ``pytest --shardbench-update`` writes it anew, to be committed. A
program that is not in the file yet is written into it.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from engines.compiled.program.result import ProgramEstimate

FILE = ".shardbench-times.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--shardbench-update``."""
    parser.getgroup("shardbench").addoption(
        "--shardbench-update", action="store_true", help=f"write the estimated times of this run to {FILE}"
    )


@pytest.fixture(scope="session")
def estimate() -> Callable[..., "ProgramEstimate"]:
    """:func:`bench.estimate.estimate`."""
    from bench.estimate import estimate as found

    return found


@pytest.fixture(scope="session")
def before(request: pytest.FixtureRequest) -> Iterator[Callable[["ProgramEstimate"], float]]:
    """Seconds that the program of this name took on this slice when the file was written; those of now if it is new."""
    path = Path(request.config.rootpath) / FILE
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    update, new = request.config.getoption("--shardbench-update"), dict[str, float]()

    def seconds(now: "ProgramEstimate") -> float:
        shape = "x".join(map(str, now.slice.mesh_shape))
        axes = ",".join(f"{name}={size}" for name, size in now.placement.axes.items())
        key = f"{now.name} on {now.slice.chip.name} {shape} ({axes})"
        if update or key not in known:
            new[key] = now.step_time_s
            return now.step_time_s
        return float(known[key])

    yield seconds
    if new:
        content = json.dumps(dict(sorted({**known, **new}.items())), indent=1)
        path.write_text(content + "\n", encoding="utf-8")

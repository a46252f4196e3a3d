"""Computes the ``program_id`` of points in a separate process, without running their programs."""

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bench.run.keys import program_id
from bench.run.load_engine import make_engine
from engines.core.errors import ShardbenchError
from engines.core.point import Point
from engines.host import python
from engines.host.parent import end_with_parent


def program_ids(engine_config: Mapping[str, Any], points: Sequence[Point]) -> list[str | None]:
    """The ``program_id`` that a row made now would have, for each point; None if the engine rejects the point.

    Raises:
        ShardbenchError: the process failed; the message ends with the last line of its stderr.
    """
    environment = make_engine(engine_config).environment(points)
    done = subprocess.run(
        python.module_words("bench.run.identify"),
        input=pickle.dumps((dict(engine_config), list(points))),
        capture_output=True,
        env=python.environment(environment),
        check=False,
    )
    lines = done.stdout.decode().splitlines()
    if done.returncode or not lines:
        stderr = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise ShardbenchError(
            f"engine={engine_config.get('name')}: computing program_id failed ({stderr[-1]}); "
            "fix the engine's installation"
        )
    found: list[str | None] = json.loads(lines[-1])
    return found


def main() -> None:
    """Read the engine's config and the points from stdin; print one JSON list."""
    end_with_parent()
    engine_config, points = pickle.load(sys.stdin.buffer)
    engine = make_engine(engine_config)
    found: list[str | None] = []
    for point in points:
        try:
            found.append(program_id(engine, point))
        except ShardbenchError:
            found.append(None)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

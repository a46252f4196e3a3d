"""Asks an engine in a process of its own which programs would answer points now, without answering them."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bench.run.keys import program_id
from bench.run.load_engine import make_engine
from engines.core.errors import ShardbenchError
from engines.core.point import Point


def program_ids(engine_config: Mapping[str, Any], points: Sequence[Point]) -> list[str | None]:
    """The ``program_id`` of each point as a row made now would hold it; None where the engine refuses the point.

    Raises:
        ShardbenchError: the process ended without an answer.
    """
    environment = make_engine(engine_config).environment(points)
    done = subprocess.run(
        [sys.executable, "-m", "bench.run.identify"],
        input=pickle.dumps((dict(engine_config), list(points))),
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )
    lines = done.stdout.decode().splitlines()
    if done.returncode or not lines:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no word"]
        raise ShardbenchError(f"engine={engine_config.get('name')}: cannot tell its programs; it ended with {said[-1]}")
    found: list[str | None] = json.loads(lines[-1])
    return found


def main() -> None:
    """Read the engine's config and points on stdin; print one JSON list."""
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

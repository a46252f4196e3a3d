"""The keys of a row: what was asked, what ran, and the code that it ran from.

A stored row answers a point as long as ``point_id`` and ``program_id`` are those of the point now. ``code_id`` only
saves the work of finding ``program_id``: while it stands, so does the program.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Final

import engines
from bench.measure.timing import TIMING_RULES_VERSION
from engines.core.digest import digest
from engines.core.engine import Engine, Runner
from engines.core.point import Point
from engines.core.versions import compiler_flags, versions_of

SUFFIXES: Final = frozenset({".py", ".csv", ".json", ".yaml"})


def point_id(engine: Engine, point: Point) -> str:
    """What is asked: every value of the point, the kind of evidence, and the engine's options. No code."""
    return point.fingerprint(json.dumps([engine.source, dict(engine.options)], sort_keys=True, default=str))


def program_id(engine: Engine, point: Point) -> str:
    """What would run now: see :meth:`Engine.program_id`, and :func:`as_timed`.

    Raises:
        ShardbenchError: the engine refuses the point.
    """
    found = as_timed(engine, engine.program_id(point))
    assert found is not None
    return found


def as_timed(engine: Engine, program: str | None) -> str | None:
    """The engine's ``program_id`` with the version of the rules by which the harness times it, if it does."""
    if program is None or not isinstance(engine, Runner):
        return program
    return digest(program, TIMING_RULES_VERSION)


def code_id(engine: Engine) -> str | None:
    """The source of the vocabulary and of the engine's packages, its libraries' versions and the compiler's flags.

    Returns:
        16 hex digits; None where these do not decide what runs.
    """
    if not engine.decided_by_source:
        return None
    folders = [_folder(Path(engines.__path__[0]) / name) for name in ("core", *engine.code)]
    rules = TIMING_RULES_VERSION if isinstance(engine, Runner) else None
    return digest(folders, versions_of(engine.libraries), compiler_flags() if engine.libraries else {}, rules)


@cache
def _folder(folder: Path) -> str:
    chosen = [path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES and "__pycache__" not in path.parts]
    return "".join(f"{path.relative_to(folder)}:{_digest(path)};" for path in chosen)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

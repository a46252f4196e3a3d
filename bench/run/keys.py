"""The keys of a row: ``point_id`` (the request), ``program_id`` (the program that ran) and ``code_id`` (the source).

A stored row is valid for a point while its ``point_id`` and ``program_id`` equal those computed now. ``code_id`` only
saves computing ``program_id``: the same source builds the same program.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import engines
from bench.measure.timing import TIMING_RULES_VERSION
from engines.core.digest import digest
from engines.core.engine import Engine, Runner
from engines.core.point import Point
from engines.core.row import Row
from engines.core.runtime import Runtime, shipped
from engines.core.source import folder_digests
from engines.core.versions import compiler_flags, versions_of


def point_id(engine: Engine, point: Point) -> str:
    """Fingerprint of the request: every value of the point, the row's source and the engine's options; no code."""
    return point.fingerprint(json.dumps([engine.source, dict(engine.options)], sort_keys=True, default=str))


def program_id(engine: Engine, point: Point) -> str:
    """Fingerprint of the program that would run now: :meth:`Engine.program_id` with :func:`as_timed`.

    Raises:
        ShardbenchError: the engine rejects the point.
    """
    found = as_timed(engine, engine.program_id(point))
    assert found is not None
    return found


def present_program_ids(engine: Engine, point: Point, rows: Sequence[Row]) -> list[str | None]:
    """The ``program_id`` that each stored row of the point would have now; None where the row cannot tell.

    Raises:
        ShardbenchError: as :func:`program_id`.
    """
    return [as_timed(engine, found) for found in engine.program_ids(point, [row.details for row in rows])]


def as_timed(engine: Engine, program: str | None) -> str | None:
    """The engine's ``program_id``, combined with the version of the timing rules if the harness times the engine."""
    if program is None or not isinstance(engine, Runner):
        return program
    return digest(program, TIMING_RULES_VERSION)


def code_id(engine: Engine) -> str | None:
    """Fingerprint of the source of ``core`` and the engine's packages, library versions and compiler flags.

    Returns:
        16 hex digits; None if these do not determine the program.
    """
    if not engine.decided_by_source:
        return None
    folders = [folder_digests(Path(engines.__path__[0]) / name) for name in ("core", *engine.code)]
    rules = TIMING_RULES_VERSION if isinstance(engine, Runner) else None
    return digest(folders, versions_of(engine.libraries), compiler_flags() if engine.libraries else {}, rules)


def code_id_of(engine: Engine, code: str | None, point: Point) -> str | None:
    """``code`` (:func:`code_id`) for a point: with what the chip's file tells the compiler for compiled rows, and with
    the runtime's constants for predicted ones.

    ``point_id`` leaves these out, since the program stands for them; but where the source is the same, nobody asks for
    the program.
    """
    if code is None or engine.source not in ("compiled", "predicted"):
        return code
    if engine.source == "compiled":
        return digest(code, point.chip.xla, point.chip.cuda, point.chip.link_constants)
    runtime = point.runtime or (None if engine.runtime is None else shipped(engine.runtime))
    return code if runtime is None else _with_constants(code, runtime, point.chip.name)


@cache
def _with_constants(code: str, runtime: Runtime, chip: str) -> str:
    return digest(code, runtime.name, runtime.values(chip))

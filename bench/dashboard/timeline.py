"""The turns of compiled loops, and the traces that they were read from: the data of the page Timeline."""

import base64
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.dashboard.details import to_json
from bench.report.studies.figure_iteration import COLOUR_OF, kind_of
from bench.report.studies.read_trace import FOLDER, LoopIteration, read_turn
from engines.core.errors import ShardbenchError
from engines.core.row import Row

DIGITS: Final = 5
"""Significant digits of a bar's figures."""
SAME_TIME: Final = 1e-6
"""Relative difference up to which two times are one."""


def data(rows: Sequence[Row], stores: Sequence[str], folder: Path) -> dict[str, Any]:
    """The page's data by name: ``timeline``, and of each trace file ``turns/<n>`` and ``traces/<n>``.

    A compiled row names its trace files (``engine.trace_dir``), and they are looked for in the folder ``traces`` of its
    store. ``timeline`` has ``found`` with the ``row``, the ``phase`` and the ``number`` of its file, or the ``problem``
    with it. ``turns/<n>`` is one turn of the loop over layers, as gzipped JSON in base64 (:func:`turn`), ``traces/<n>``
    the whole file in base64.
    """
    files: dict[Path, tuple[int, LoopIteration] | str] = {}
    packed: dict[str, Any] = {}
    found = []
    for place, (row, store) in enumerate(zip(rows, stores, strict=True)):
        for phase, name in _named(row).items():
            path = folder / store / FOLDER / name
            if path not in files:
                files[path] = _read(path, packed)
            file = files[path]
            problem = file if isinstance(file, str) else _another_program(row, phase, file[1])
            number = None if isinstance(file, str) or problem is not None else file[0]
            found.append({"row": place, "phase": phase, "name": name, "number": number, "problem": problem})
    about = {"found": found, "results_dir": str(folder), "folder": FOLDER, "colours": COLOUR_OF}
    return {"timeline": about, **packed}


def _named(row: Row) -> Mapping[str, str]:
    """Phase → file name; a name that leads out of the folder is none."""
    names = row.details.get("traces")
    if row.status != "ok" or not isinstance(names, dict):
        return {}
    return {str(phase): name for phase, name in names.items() if isinstance(name, str) and Path(name).name == name}


def _read(path: Path, packed: dict[str, Any]) -> tuple[int, LoopIteration] | str:
    """The number under which a trace and its turn are packed, and the turn; or why they are not."""
    if not path.is_file():
        return f"{path} is not there"
    try:
        shown = read_turn(path)
        content = path.read_bytes()
    except (ShardbenchError, OSError) as error:
        return str(error)
    number = sum(name.startswith("turns/") for name in packed)
    packed[f"turns/{number}"] = _base64(gzip.compress(to_json(turn(shown)).encode(), compresslevel=5, mtime=0))
    packed[f"traces/{number}"] = _base64(content)
    return number, shown


def _another_program(row: Row, phase: str, shown: LoopIteration) -> str | None:
    """Why the trace is not the row's: a later run of the point writes a file of the same name.

    A program of unrolled layers is traced with few of them, and its time tells nothing.
    """
    seconds = row.latency_s if phase == row.phase else row.ttft_s if phase == "prefill" else None
    if seconds is None or "unrolled" in row.details or abs(shown.whole_s - seconds) <= SAME_TIME * seconds:
        return None
    return f"the trace of this name is of another program: it takes {shown.whole_s:.4g} s, and the row {seconds:.4g} s"


def turn(shown: LoopIteration) -> dict[str, Any]:
    """One turn as columns: of each bar its ``lane`` and ``kind`` (places in ``lanes`` and ``kinds``), name, seconds.

    ``weight`` is how often the bar runs in one turn, ``bytes`` what it moves, ``latency_s`` of a collective.
    """
    lanes = shown.lanes
    kinds = list(dict.fromkeys(kind_of(bar) for bar in shown.bars))
    return {
        "seconds": shown.seconds,
        "turns": shown.turns,
        "loops": shown.loops,
        "whole_s": shown.whole_s,
        "lanes": lanes,
        "kinds": kinds,
        "lane": [lanes.index(bar.label) for bar in shown.bars],
        "kind": [kinds.index(kind_of(bar)) for bar in shown.bars],
        "name": [bar.name for bar in shown.bars],
        "start_s": [_rounded(bar.start_s) for bar in shown.bars],
        "duration_s": [_rounded(bar.seconds) for bar in shown.bars],
        "weight": [_rounded(bar.weight) for bar in shown.bars],
        "bytes": [_rounded(bar.bytes) for bar in shown.bars],
        "latency_s": [_rounded(bar.latency_s) for bar in shown.bars],
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")

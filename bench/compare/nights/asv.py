"""Measured and computed times as result files of airspeed velocity (asv), for its show, compare and publish.

One benchmark for each evidence, engine and phase (``measured.jax.decode``), with one parameter: the point, as it would
be asked of ``shardbench run``. asv knows a result by machine, commit and environment; of several nights of the same the
last counts. Format: asv 0.6, ``results.py`` (version 2) and ``machine.py`` (version 1).
"""

import hashlib
import json
import re
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.compare.nights.history import Answer, histories
from bench.compare.nights.read import Night
from bench.measure.stats import median_interval
from bench.rows.atomic import replaced
from bench.rows.table import plain_text
from engines.core.row import POINT_FIELDS, Row
from engines.core.runtime import AUTO

RESULTS_VERSION: Final = 2
MACHINE_VERSION: Final = 1
COLUMNS: Final = (
    *("result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b", "stats_q_25"),
    *("stats_q_75", "stats_number", "stats_repeat", "samples"),
)
BENCHMARK_VERSION: Final = "1"
PARAMETER: Final = "point"
IN_NAME: Final = ("engine", "phase")
"""Keys of the point that the benchmark's name says."""
UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.+-]+")


def write_asv(nights: Sequence[Night], out: Path) -> tuple[int, int]:
    """Write ``asv.conf.json`` and ``results/`` under ``out``, each file as a whole; other files there are left alone.

    Returns:
        how many points with a time were written, and how many rows were left out, because no commit is known of them.

    Raises:
        InvalidRequest: a file cannot be written; the key is ``out``.
    """
    groups: dict[tuple[str, str, str], list[Night]] = {}
    left_out = 0
    for night in nights:
        by_place: dict[tuple[str, str, str], list[Row]] = {}
        for row in night.rows:
            if row.git_sha is None:
                left_out += 1
            else:
                by_place.setdefault((machine_of(row), row.git_sha, _environment(row)), []).append(row)
        for place, rows in by_place.items():
            groups.setdefault(place, []).append(Night(day=night.day, store=night.store, rows=rows))
    files: dict[str, Any] = {}
    points: dict[str, set[str]] = {}
    written = 0
    for (machine, commit, environment), of in groups.items():
        answers = [history.last for history in histories(of)]
        content = _results(machine, commit, environment, answers)
        files[f"results/{machine}/{commit[:8]}-{environment}.json"] = content
        files[f"results/{machine}/machine.json"] = _machine(machine)
        written += sum(answer.time_s is not None for answer in answers)
        for answer in answers:
            points.setdefault(benchmark_name(answer.row), set()).add(repr(point_text(answer.row)))
    files["results/benchmarks.json"] = {
        **{name: _benchmark(name, sorted(found)) for name, found in sorted(points.items())},
        "version": RESULTS_VERSION,
    }
    files["asv.conf.json"] = _configuration()
    for name, content in files.items():
        with replaced(out / name) as aside:
            aside.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
    return written, left_out


def benchmark_name(row: Row) -> str:
    """``measured.jax.decode``."""
    return ".".join(UNSAFE.sub("_", part) for part in (row.source, row.engine, row.phase))


def point_text(row: Row) -> str:
    """The point as words of ``shardbench run``, without what the benchmark's name says or was left to the engine."""
    stated = {name: getattr(row, name) for name in POINT_FIELDS if name not in IN_NAME and name not in row.chosen}
    return " ".join(
        shlex.quote(f"{name}={plain_text(value)}") for name, value in stated.items() if value not in (None, AUTO, "")
    )


def machine_of(row: Row) -> str:
    """The host, or for times that are not measured what they are, as the name of a folder."""
    name = UNSAFE.sub("_", (row.host or "unknown") if row.source == "measured" else row.source)
    return name.lstrip(".") or "unknown"


def _environment(row: Row) -> str:
    """A name for what ran: libraries and device."""
    content = json.dumps([dict(sorted(row.versions.items())), row.device_kind])
    return f"shardbench-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _results(machine: str, commit: str, environment: str, answers: Sequence[Answer]) -> dict[str, Any]:
    versions = dict(answers[-1].row.versions)
    python = versions.pop("python", "unknown")
    by_name: dict[str, list[Answer]] = {}
    for answer in answers:
        by_name.setdefault(benchmark_name(answer.row), []).append(answer)
    return {
        "commit_hash": commit,
        "env_name": environment,
        "date": min(_milliseconds(answer.row) for answer in answers),
        "params": {**versions, **_machine(machine), "python": python, "device_kind": answers[-1].row.device_kind or ""},
        "python": python,
        "requirements": versions,
        "env_vars": {},
        "result_columns": list(COLUMNS),
        "results": {name: _columns(found) for name, found in sorted(by_name.items())},
        "durations": {},
        "version": RESULTS_VERSION,
    }


def _columns(answers: Sequence[Answer]) -> list[Any]:
    """The values of :data:`COLUMNS`, by point."""
    ordered = sorted({point_text(answer.row): answer for answer in answers}.items(), key=lambda each: repr(each[0]))
    samples = [_samples(answer) for _, answer in ordered]
    stats = [_stats(each) for each in samples]
    columns = [[each.get(name) for each in stats] for name in COLUMNS[5:11]]
    return [
        [answer.time_s for _, answer in ordered],
        [[repr(text) for text, _ in ordered]],
        BENCHMARK_VERSION,
        max(_milliseconds(answer.row) for _, answer in ordered),
        None,
        *(None if all(value is None for value in column) else column for column in columns),
        samples if any(samples) else None,
    ]


def _samples(answer: Answer) -> list[float] | None:
    """The medians of the processes, where there are several, else the samples of the one."""
    if answer.time_s is None:
        return None
    if len(answer.times_s) > 1:
        return list(answer.times_s)
    return list(answer.row.samples_s) if answer.row.samples_s else None


def _stats(samples: Sequence[float] | None) -> Mapping[str, float | int | None]:
    """asv's statistics; an interval of fewer than two samples is unknown."""
    if not samples:
        return {}
    values = np.asarray(samples, np.float64)
    low, high = median_interval(values, 0.99, 1000, seed=0) if values.size > 1 else (None, None)
    quartiles = statistics.quantiles(samples, n=4, method="inclusive") if values.size > 1 else [samples[0]] * 3
    return {
        "stats_ci_99_a": low,
        "stats_ci_99_b": high,
        "stats_q_25": quartiles[0],
        "stats_q_75": quartiles[2],
        "stats_number": 1,
        "stats_repeat": len(samples),
    }


def _benchmark(name: str, points: Sequence[str]) -> dict[str, Any]:
    common = {"code": "", "min_run_count": 1, "number": 1, "repeat": 0, "rounds": 1, "sample_time": 0.0}
    about = {"name": name, "param_names": [PARAMETER], "params": [list(points)], "type": "time", "unit": "seconds"}
    return {**common, **about, "timeout": 0.0, "version": BENCHMARK_VERSION, "warmup_time": 0.0}


def _machine(name: str) -> dict[str, Any]:
    facts = dict.fromkeys(("arch", "cpu", "num_cpu", "os", "ram"), "")
    return {"machine": name, **facts, "version": MACHINE_VERSION}


def _configuration() -> dict[str, Any]:
    """What asv needs to know; ``repo`` is the checkout that made the rows, which asv publish takes dates from."""
    root = Path(__file__).parents[3]
    repo = str(root) if (root / ".git").exists() else "."
    fixed = {"version": 1, "project": "shardbench", "environment_type": "existing", "branches": ["HEAD"]}
    return {**fixed, "repo": repo, "results_dir": "results", "html_dir": "html", "benchmark_dir": "."}


def _milliseconds(row: Row) -> int:
    """The time of the row as JavaScript has it, UTC."""
    try:
        made = datetime.fromisoformat(row.created_at)
    except ValueError:
        return 0
    return int((made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp() * 1000)


def as_nights(rows: Iterable[Row]) -> list[Night]:
    """Rows of one store, oldest first, as one night: of each point the newest answers count."""
    return [Night(day="", store=Path(), rows=list(rows))]

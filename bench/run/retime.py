"""Compiled rows of an earlier version of the timing model, or of before rows told theirs, are asked again.

Each is asked with the settings that it records, of the compiler that it records. Where the answer is the same to the
last digit, the row only says so: it keeps its time and all that it tells. Elsewhere the new row stands for the point,
as after any other run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bench.measure.timing import TimingConfig
from bench.rows.part_time import Entry
from bench.rows.repair import compact
from bench.rows.standing import standing_rows
from bench.rows.store import Store
from bench.run.again import by_config, other_versions, requested_point
from bench.run.keys import code_id, code_id_of, point_id
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask
from bench.run.parallel import Beside, Workers
from bench.run.progress import Output
from engines.compiled.cost.version import DETAIL, is_present
from engines.core.errors import ShardbenchError
from engines.core.row import POINT_FIELDS, PROGRAM, Row

ANSWERS: Final = ("ok", "oom")
"""Statuses of rows that a compiler answered."""
TRACES: Final = "traces"
"""The detail that names trace files, and the folder beside ``rows`` that they lie in."""
COMPARED: Final = (
    *("status", "valid", "latency_s", "ttft_s", "step_time_s", "tpot_s", *POINT_FIELDS, "chosen"),
    *("compute_s", "memory_s", "communication_s", "overlapped_s", "overhead_s"),
    *("tokens_per_turn", "mean_layers", "peak_flops_per_s", "hbm_bytes_per_s", "peak_source"),
    *("peak_hbm_bytes", "weights_bytes", "kv_cache_bytes", "activations_bytes"),
)
"""What a row answers; the other keys follow from these (MFU, tokens/s), say who answered, when and where, or are of
measured rows."""
NOT_COMPARED: Final = frozenset({"compile_s", "hot_loop", TRACES, DETAIL})
"""Keys of ``details`` that say how the answer was found, or explain it by names that the program's source gives."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row with the one that stands now, and the first key of which they tell different values."""

    old: Row
    new: Row
    key: str
    before: Any
    now: Any


@dataclass(frozen=True, slots=True)
class Retimed:
    """Rows whose answer is the same, those that are answered otherwise, and those that stay as they were, and why."""

    same: list[Row] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    left: list[tuple[Row, str]] = field(default_factory=list)


def retime(store: Store, not_recorded: Mapping[str, Any], at_once: int = 1) -> Retimed:
    """Ask every compiled row that stands for its point and is not of the present timing model, in child processes.

    Each outcome is stored as it is found: a command that was ended goes on where it was. ``not_recorded`` are settings
    that no row records, such as the folder of a repository.

    Raises:
        ShardbenchError: a file of rows is broken, or the folder cannot be written.
    """
    _fold(store)  # what a command that was ended has left
    rows = [row for row in standing_rows(store.load()).values() if _is_earlier(row)]
    groups, refused = by_config(rows)
    found = Retimed(left=[(row, refused[id(row)]) for row in rows if id(row) in refused])
    # As a table that is never printed: what is shown is how far it is.
    with Output("table", len(rows) - len(refused)) as output:
        for config, group in _with_traces(groups, Path(str(store.results_dir)) / TRACES):
            config |= {key: value for key, value in not_recorded.items() if key in config}
            for row, answer in _answered(config, group, at_once):
                output.show(row if isinstance(answer, str) else answer, new=True)
                if isinstance(answer, str):
                    found.left.append((row, answer))
                else:
                    _settle(store, row, answer, found)
    _fold(store)
    return found


def difference(before: Any, now: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The first value that ``before`` tells and ``now`` does not, with its path; None if there is none."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        pairs = (difference(value, now.get(key), f"{path}.{key}" if path else key) for key, value in before.items())
        return next((each for each in pairs if each is not None), None)
    return None if before == now else (path, before, now)


def _is_earlier(row: Row) -> bool:
    return row.source == "compiled" and row.status in ANSWERS and not is_present(row.details)


def _fold(store: Store) -> None:
    """Put each row that says that its answer is the same in the place of the one that did not, in one file."""
    if len(store.parts()) > 1:
        compact(store, _folded)


def _folded(entries: Sequence[Entry]) -> list[str]:
    """The lines of rows, oldest first. A row that tells its version has the point and the time of what it was."""
    told = {_key(entry.row): entry.line for entry in entries if is_present(entry.row.details)}
    lines = (told.get(_key(entry.row), entry.line) if _is_earlier(entry.row) else entry.line for entry in entries)
    return list(dict.fromkeys(lines))


def _key(row: Row) -> tuple[str, str]:
    return row.point_id, row.created_at


def _with_traces(
    groups: Sequence[tuple[dict[str, Any], list[Row]]], folder: Path
) -> Iterator[tuple[dict[str, Any], list[Row]]]:
    """Rows that name traces get them anew, in the folder where they are."""
    for config, rows in groups:
        traced = [row for row in rows if TRACES in row.details and "trace_dir" in config and folder.is_dir()]
        plain = [row for row in rows if all(row is not each for each in traced)]
        for also, part in (({"trace_dir": str(folder)}, traced), ({}, plain)):
            if part:
                yield config | also, part


def _answered(config: Mapping[str, Any], rows: Sequence[Row], at_once: int) -> Iterator[tuple[Row, Row | str]]:
    """Every row with the present answer to its point, or with the reason why it is not asked."""
    engine = make_engine(config)
    code = code_id(engine)
    # Another Python has versions of its own, which its answers tell.
    libraries = () if config.get("python") else engine.libraries
    asked: list[tuple[Row, PointTask]] = []
    for row in rows:
        try:
            if row.phase == PROGRAM:
                raise ShardbenchError("a program that somebody else wrote; shardbench estimate asks it again")
            point = requested_point(row)
            key, reason = point_id(engine, point), other_versions(row, libraries)
            if key != row.point_id:
                reason = f"it does not record all that it was asked: with what it records, its point_id is {key}"
            if reason is not None:
                raise ShardbenchError(reason)
        except ShardbenchError as error:
            yield row, str(error)
            continue
        own = code_id_of(engine, code, point)
        asked.append((row, PointTask(point=point, point_id=key, source=row.source, sweep=row.sweep, code_id=own)))
    if not asked:
        return
    tasks = [task for _, task in asked]
    of = {task.point_id: row for row, task in asked}
    workers = Workers(
        config, TimingConfig(), engine.environment([task.point for task in tasks]), engine.shares_programs
    )
    for task, answer in workers.evaluate(tasks, lambda _: True, [Beside() for _ in tasks[:at_once]]):
        assert answer is not None
        yield of[task.point_id], answer


def _settle(store: Store, row: Row, answer: Row, found: Retimed) -> None:
    """Store the row, saying that its answer is the same, or the answer; neither where there is no answer."""
    if answer.status not in ANSWERS:
        found.left.append((row, f"{answer.status}: {answer.error}"))
        return
    if not is_present(answer.details):
        found.left.append((row, f"engine={row.engine} does not tell by which version of the timing model it answers"))
        return
    details = {key: value for key, value in row.details.items() if key in answer.details and key not in NOT_COMPARED}
    differs = difference({**_told(row), "details": details}, {**_told(answer), "details": answer.details})
    if differs is not None:
        store.append([answer])
        found.changed.append(Change(row, answer, *differs))
        return
    details = row.details | {DETAIL: answer.details[DETAIL]}
    same = replace(row, program_id=answer.program_id, code_id=answer.code_id, details=details)
    store.append([same])
    found.same.append(same)


def _told(row: Row) -> dict[str, Any]:
    """What a row answers, as far as it tells: a row of before a key was one has no value of it."""
    return {name: value for name in COMPARED if (value := getattr(row, name)) is not None}

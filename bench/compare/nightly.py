"""The nightly run: a sweep into a folder of its date, compared with the night before, with report and dashboard."""

import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final

from bench.cli.commands.compare import plain, rows_of
from bench.compare.dashboard.write import write
from bench.compare.verdicts import Comparison, Rules, compare, newest
from bench.rows.atomic import replaced
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import Row
from engines.host.python import environment, module_words, supervised_words

DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
SOME_FAILED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlySettings:
    """``words`` are further arguments of ``shardbench run``, ``programs`` those of each ``shardbench estimate``.

    Nights are stored in ``RESULTS_DIR/nightly/<date>``.

    ``confirm`` is how often the sweep is repeated while a measured point is slower than the night before.
    ``processes`` measure every point; with more than one, their medians are compared.
    """

    sweep: str
    results_dir: Path
    out: Path
    day: str
    rules: Rules
    confirm: int
    processes: int = 1
    words: Sequence[str] = field(default_factory=tuple)
    programs: Sequence[Sequence[str]] = field(default_factory=tuple)

    @property
    def night(self) -> Path:
        """The store of this night."""
        return self.results_dir / "nightly" / self.day


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a night. ``comparison`` is None without an earlier night."""

    night: Path
    previous: Path | None
    repeats: int
    comparison: Comparison | None
    points_failed: bool
    files: Sequence[Path]

    @property
    def exit_code(self) -> int:
        """1 for a regression, else 3 where points failed, else 0."""
        if self.comparison is not None and self.comparison.regressions:
            return 1
        return SOME_FAILED if self.points_failed else 0


def checked_day(text: str) -> str:
    """A date as the name of a night's folder.

    Raises:
        InvalidRequest: it is not a date.
    """
    try:
        if DATE.fullmatch(text):
            return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    raise InvalidRequest("date", text, "is not a date", "write date=2026-01-31")


def run_night(plan: NightlySettings) -> Outcome:
    """Run, compare, write. A second call on the same day resumes the run and rewrites the files.

    Raises:
        ShardbenchError: the sweep or the report failed, or a store cannot be read or written.
    """
    code = _run(plan)
    for words in plan.programs:
        code = max(code, _shardbench("estimate", *words, f"results_dir={plan.night}", may_end=(0, SOME_FAILED)))
    rows = rows_of("results_dir", plan.night)
    for _ in range(plan.processes - 1):
        if _fewest_processes(rows) >= plan.processes:
            break
        code = max(code, _run(plan, "resume=false"))
        rows = rows_of("results_dir", plan.night)
    previous = night_before(plan.night)
    comparison = None
    repeats = 0
    files = []
    folder = plan.out / plan.day
    if previous is not None:
        before = rows_of("results_dir", previous)
        comparison = compare(before, rows, plan.rules)
        while repeats < plan.confirm and _suspected(comparison):
            repeats += 1
            code = max(code, _run(plan, "resume=false"))
            comparison = compare(before, rows_of("results_dir", plan.night), plan.rules)
        with replaced(folder / "comparison.json") as aside:
            content = {"old": str(previous), "new": str(plan.night), "repeats": repeats, **plain(comparison)}
            aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        files.append(folder / "comparison.json")
    _shardbench("report", f"results_dir={plan.night}", f"out={folder}", f"title=Night of {plan.day}", "print=json")
    files.append(folder / "report.md")
    page = plan.out / "dashboard.html"
    write(plan.night.parent, page, f"shardbench, nightly to {plan.day}", plan.rules)
    files.append(page)
    return Outcome(
        night=plan.night,
        previous=previous,
        repeats=repeats,
        comparison=comparison,
        points_failed=code == SOME_FAILED,
        files=files,
    )


def night_before(night: Path) -> Path | None:
    """The newest folder of an earlier date that holds rows."""
    earlier = [
        path
        for path in night.parent.iterdir()
        if DATE.fullmatch(path.name) and path.name < night.name and any((path / "rows").glob("*.jsonl"))
    ]
    return max(earlier, default=None, key=lambda path: path.name)


def _fewest_processes(rows: Sequence[Row]) -> float:
    """The smallest number of processes that measured a point; infinite without measured points."""
    present = {(row.point_id, row.program_id) for row in newest(rows).values()}  # of the programs that run now
    measured = [(row.point_id, row.program_id) for row in rows if row.source == "measured" and row.valid]
    counts = Counter(key for key in measured if key in present)
    return min(counts.values(), default=math.inf)


def _run(plan: NightlySettings, *words: str) -> int:
    arguments = (f"+sweep={plan.sweep}", *plan.words, f"results_dir={plan.night}", "print=none", *words)
    return _shardbench("run", *arguments, may_end=(0, SOME_FAILED))


def _suspected(comparison: Comparison) -> bool:
    """Whether a measured point is slower, for which other load on the machine may be the reason."""
    return any(change.verdict == "slower" and change.new.source == "measured" for change in comparison.changes)


def _shardbench(*words: str, may_end: Sequence[int] = (0,)) -> int:
    """Run a command in its own process; its stderr is passed on, unless it is an error.

    Raises:
        ShardbenchError: its exit code is not in ``may_end``.
    """
    with subprocess.Popen(
        supervised_words(*module_words("bench.cli.main", *words)),  # it ends with this process
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        lines = [line for line in process.stderr.read().decode(errors="replace").splitlines() if line.strip()]
    if process.returncode in may_end:
        for line in lines:
            print(line, file=sys.stderr)
        return process.returncode
    message = lines[-1].removeprefix("shardbench: ") if lines else f"ended with exit code {process.returncode}"
    raise ShardbenchError(f"shardbench {words[0]}: {message}")

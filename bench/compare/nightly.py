"""The nightly run: a sweep into a folder of its date, judged by all nights before it, with report and dashboard."""

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final

from bench.compare.nights.history import histories
from bench.compare.nights.judge import Verdict, judge
from bench.compare.nights.read import DATE, Night, read_nights
from bench.compare.nights.steps import StepRules
from bench.compare.nights.summary import action_benchmark, markdown, plain
from bench.compare.verdicts import Rules, newest
from bench.dashboard.write import write
from bench.rows.atomic import replaced
from engines.core.errors import InvalidRequest, ShardbenchError, Unsupported
from engines.core.row import Row
from engines.host.python import environment, module_words, supervised_words

SOME_FAILED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlySettings:
    """``words`` are further arguments of ``shardbench run``, ``programs`` those of each ``shardbench estimate``.

    Nights are stored in ``RESULTS_DIR/nightly/<date>``.

    ``processes`` measure every point; ``confirm`` more do while a measured point is suspected to be slower.
    """

    sweep: str
    results_dir: Path
    out: Path
    day: str
    rules: Rules
    steps: StepRules
    confirm: int
    processes: int = 3
    words: Sequence[str] = field(default_factory=tuple)
    programs: Sequence[Sequence[str]] = field(default_factory=tuple)

    @property
    def night(self) -> Path:
        """The store of this night."""
        return self.results_dir / "nightly" / self.day


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a night."""

    night: Path
    repeats: int
    verdict: Verdict
    points_failed: bool
    files: Sequence[Path]

    @property
    def exit_code(self) -> int:
        """1 for a new regression, else 3 where points failed or a machine's could not be compared, else 0."""
        if self.verdict.worse:
            return 1
        not_compared = self.verdict.compared_nothing or self.verdict.not_compared
        return SOME_FAILED if self.points_failed or not_compared else 0


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
    for _ in range(plan.processes - 1):
        if _fewest_processes(_tonight(plan).rows) >= plan.processes:
            break
        code = max(code, _run(plan, "resume=false"))
    verdict, repeats = _judged(plan), 0
    while repeats < plan.confirm and any(each.history.machine for each in verdict.of("suspected", "slower")):
        repeats += 1
        code = max(code, _run(plan, "resume=false"))
        verdict = _judged(plan)
    folder = plan.out / plan.day
    nights = read_nights(plan.night.parent, until=plan.day)
    written = {
        "summary.md": markdown(verdict),
        "verdict.json": json.dumps({"night": str(plan.night), "repeats": repeats, **plain(verdict)}, indent=1) + "\n",
        "benchmark.json": json.dumps(action_benchmark(nights[-1], histories(nights)), indent=1) + "\n",
    }
    for name, text in written.items():
        with replaced(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
    _shardbench("report", f"results_dir={plan.night}", f"out={folder}", f"title=Night of {plan.day}", "print=json")
    files = [*(folder / name for name in written), folder / "report.md"]
    page = plan.out / "dashboard.html"
    try:
        write(plan.night.parent, page, f"shardbench, nightly to {plan.day}", plan.rules, plan.steps)
        files.append(page)
    except Unsupported as error:  # the night is judged all the same
        print(f"shardbench: {page} is not written: {error}", file=sys.stderr)
    return Outcome(
        night=plan.night,
        repeats=repeats,
        verdict=verdict,
        points_failed=code == SOME_FAILED,
        files=files,
    )


def _judged(plan: NightlySettings) -> Verdict:
    return judge(read_nights(plan.night.parent, until=plan.day), plan.steps, plan.rules.threshold)


def _tonight(plan: NightlySettings) -> Night:
    """Tonight's rows.

    Raises:
        InvalidRequest: there are none.
    """
    nights = read_nights(plan.night.parent, until=plan.day)
    if not nights or nights[-1].day != plan.day or not nights[-1].rows:
        raise InvalidRequest("sweep", plan.sweep, "made no rows", "use a sweep with points")
    return nights[-1]


def _fewest_processes(rows: Sequence[Row]) -> float:
    """The smallest number of processes that measured a point; infinite without measured points."""
    present = {(row.point_id, row.program_id) for row in newest(rows).values()}  # of the programs that run now
    measured = [(row.point_id, row.program_id) for row in rows if row.source == "measured" and row.valid]
    counts = Counter(key for key in measured if key in present)
    return min(counts.values(), default=math.inf)


def _run(plan: NightlySettings, *words: str) -> int:
    arguments = (f"+sweep={plan.sweep}", *plan.words, f"results_dir={plan.night}", "print=none", *words)
    return _shardbench("run", *arguments, may_end=(0, SOME_FAILED))


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

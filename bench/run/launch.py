"""``shardbench run -m`` with a launcher or sweeper of Hydra other than its own: jobs run where they are launched."""

import argparse
import difflib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from omegaconf import DictConfig

from bench.rows.counted import counted
from bench.rows.metrics import METRICS
from bench.run.launched import LaunchedJob, Report, read_reports
from bench.run.progress import Output
from bench.sweep.compose_errors import first_line
from bench.sweep.composer import Composer
from bench.sweep.hydra_main import call, has_basic_sweeper
from bench.sweep.overrides import parsed, quoted
from bench.sweep.requests import carried, jobs_of, requests_of
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import Row

SOME_FAILED: Final = 3
ALL_CORES: Final = -1
"""joblib's number of processes where the user gave none."""


def launch(composer: Composer, config: DictConfig, flags: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Let Hydra launch the jobs; print the rows of all, and return the exit code of the command.

    With Hydra's own sweeper all jobs are composed and checked before the first is launched. Each job stores its rows
    and writes a report; one without a report has died, and counts as failed.

    Raises:
        ShardbenchError: a request is invalid, or the launcher or sweeper refuses it before any job.
    """
    names = {kind: config.hydra.runtime.choices[f"hydra/{kind}"] for kind in ("launcher", "sweeper")}
    jobs: list[list[str]] | None = None
    if has_basic_sweeper(config):
        jobs = jobs_of(composer, overrides, config)
        if not any("hw=here" in word or "here" in word.partition("=")[2] for word in overrides):
            for job in jobs:
                requests_of(composer, job)
    workers = config.workers
    if workers is not None and jobs is None:
        remedy = "leave it out; a sweeper that searches launches its own jobs"
        raise InvalidRequest("workers", workers, f"shares no jobs of hydra/sweeper={names['sweeper']}", remedy)
    folder = Path(str(config.hydra.sweep.dir)).absolute()
    reports = folder / "reports"
    before = set(reports.glob("*.json"))
    task = LaunchedJob(
        reports=str(reports),
        config_dir=composer.config_dir,
        config_name=composer.config_name,
        shared=None if workers is None else jobs,
        objectives=_objectives(config),
    )
    words = carried(overrides) if workers is None else _of_workers(config, overrides, workers)
    count = (
        "jobs"
        if jobs is None
        else counted(len(jobs) if workers is None else workers, "job" if workers is None else "worker")
    )
    print(
        f"shardbench: {count} launched with hydra/launcher={names['launcher']} hydra/sweeper={names['sweeper']}; "
        f"logs and reports in {folder}",
        file=sys.stderr,
    )
    failure: Exception | None = None
    try:
        call(task, flags, [*words, f"hydra.sweep.dir={quoted(str(folder))}"])
    except Exception as error:  # a launcher raises what it likes for a job that died
        failure = error
    if isinstance(failure, ShardbenchError) and not read_reports(reports).keys() - before:
        raise failure
    done = [report for path, report in read_reports(reports).items() if path not in before]
    if workers is not None:
        return _end_of_workers(config, done, workers, failure, folder)
    if jobs is None:
        return _end_of_search(config, done, failure)
    lost = _lost(jobs, done)
    _show(config, done)
    for each in lost:
        print(f"shardbench: the job {' '.join(each)} ended without a report; see {folder}", file=sys.stderr)
    if failure is not None or not done:
        _tell_failure(names["launcher"], failure)
    return SOME_FAILED if lost or failure is not None else _exit_code(done)


def _objectives(config: DictConfig) -> list[str]:
    """The metrics that a sweeper searches by.

    Raises:
        InvalidRequest: rows have no such metric.
    """
    asked = config.hydra.sweeper.get("objective") or "latency_s"
    names = [asked] if isinstance(asked, str) else [str(each) for each in asked]
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            remedy = f"did you mean {near[0]}" if near else "use one, such as latency_s, cost_chip_s_per_token or mfu"
            raise InvalidRequest("hydra.sweeper.objective", name, "is not a metric of a row", remedy)
    return names


def _of_workers(config: DictConfig, overrides: Sequence[str], workers: int) -> list[str]:
    """The overrides that make Hydra launch so many jobs, which are alike but for their number.

    A pool of as many processes as the machine has cores would start the last workers when all is done.
    """
    about_hydra = [word for word in overrides if parsed(word).is_hydra_override()]
    launcher = config.hydra.launcher
    pool = [f"hydra.launcher.n_jobs={workers}"] if launcher.get("n_jobs") == ALL_CORES else []
    numbers = ",".join(str(number) for number in range(workers))
    return [*about_hydra, *pool, "hydra.sweeper.params=null", f"+worker={numbers}"]


def _end_of_workers(
    config: DictConfig, done: Sequence[Report], workers: int, failure: Exception | None, folder: Path
) -> int:
    """Print the rows that workers have made together, and return the exit code.

    Who ends has seen a row of every point, so those that died are missed only if nobody is left.
    """
    ended = [report for report in done if report.error is None]
    _show_together(config, done)
    if len(done) < workers:
        rest = "the others did their points" if ended else "run the command again"
        died = f"{workers - len(done)} of {counted(workers, 'worker')} ended without a report"
        print(f"shardbench: {died}; {rest}; see {folder}", file=sys.stderr)
    if not ended and failure is not None:
        _tell_failure(str(config.hydra.runtime.choices["hydra/launcher"]), failure)
    return _exit_code(done)


def _end_of_search(config: DictConfig, done: Sequence[Report], failure: Exception | None) -> int:
    """Print the rows that a sweeper has asked for, each once; a point without a time is no failure of a search."""
    _show_together(config, done)
    if failure is not None or not done:
        _tell_failure(str(config.hydra.runtime.choices["hydra/sweeper"]), failure)
        return SOME_FAILED
    return 0 if any(report.exit_code == 0 for report in done) else _exit_code(done)


def _tell_failure(launcher: str, failure: Exception | None) -> None:
    reason = "no job reported" if failure is None else first_line(failure)
    print(f"shardbench: {launcher}: {reason}; the other jobs' rows are stored, run the command again", file=sys.stderr)


def _exit_code(done: Sequence[Report]) -> int:
    """The exit code that all jobs share; 0 where some had none of their own to say, 3 where they differ."""
    codes = {report.exit_code for report in done} - {0}
    if len(codes) > 1 or not done:
        return SOME_FAILED
    if codes == {2} and any(report.exit_code == 0 for report in done):
        return SOME_FAILED
    return codes.pop() if codes else 0


def _lost(jobs: Sequence[Sequence[str]], done: Sequence[Report]) -> list[tuple[str, ...]]:
    """The jobs without a report."""
    left = Counter(_task_words(job) for job in jobs)
    left.subtract(_task_words(report.words) for report in done)
    return sorted(left.elements())


def _task_words(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(word for word in words if not parsed(word).is_hydra_override()))


def _show_together(config: DictConfig, done: Sequence[Report]) -> None:
    """Print the rows of jobs that may have the same points, each row once."""
    by_point = {(row["point_id"], row["sweep"]): row for report in done for row in report.rows}
    new = sum(len(report.rows) - report.stored for report in done)
    merged = Report(words=(), exit_code=0, stored=max(0, len(by_point) - new), rows=list(by_point.values()))
    _show(config, [merged, *(report for report in done if report.error is not None)])


def _show(config: DictConfig, done: Sequence[Report]) -> None:
    """Print the rows of all jobs as one command does, and the sentences of those that were refused."""
    rows = [Row.from_dict(row) for report in sorted(done, key=lambda each: list(each.words)) for row in report.rows]
    for error in dict.fromkeys(report.error for report in done if report.error is not None):
        print(f"shardbench: {error}", file=sys.stderr)
    with Output(str(config["print"]), len(rows)) as output:
        for row in rows:
            output.show(row, new=True)
        output.close(sum(report.stored for report in done), str(config["results_dir"]))

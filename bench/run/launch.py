"""``shardbench run -m`` with a launcher or sweeper of Hydra other than its own: jobs run where they are launched."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from omegaconf import DictConfig

from bench.run.launched import LaunchedJob, Report, read_reports
from bench.run.progress import Output
from bench.sweep.compose_errors import first_line
from bench.sweep.composer import Composer
from bench.sweep.hydra_main import call, has_basic_sweeper
from bench.sweep.overrides import parsed, quoted
from bench.sweep.requests import carried, jobs_of, requests_of
from engines.core.errors import ShardbenchError
from engines.core.row import Row

SOME_FAILED: Final = 3


def launch(composer: Composer, config: DictConfig, flags: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Let Hydra launch the jobs; print the rows of all, and return the exit code of the command.

    With Hydra's own sweeper all jobs are composed and checked before the first is launched. Each job stores its rows
    and writes a report; one without a report has died, and counts as failed.

    Raises:
        ShardbenchError: a request is invalid, or the launcher or sweeper refuses it before any job.
    """
    jobs: list[list[str]] | None = None
    if has_basic_sweeper(config):
        jobs = jobs_of(composer, overrides, config)
        if not any("hw=here" in word or "here" in word.partition("=")[2] for word in overrides):
            for job in jobs:
                requests_of(composer, job)
    folder = Path(str(config.hydra.sweep.dir)).absolute()
    reports = folder / "reports"
    before = set(reports.glob("*.json"))
    task = LaunchedJob(str(reports), composer.config_dir, composer.config_name)
    names = {kind: config.hydra.runtime.choices[f"hydra/{kind}"] for kind in ("launcher", "sweeper")}
    count = "" if jobs is None else f"{len(jobs)} "
    print(
        f"shardbench: {count}jobs launched with hydra/launcher={names['launcher']} hydra/sweeper={names['sweeper']}; "
        f"logs and reports in {folder}",
        file=sys.stderr,
    )
    failure: Exception | None = None
    try:
        call(task, flags, [*carried(overrides), f"hydra.sweep.dir={quoted(str(folder))}"])
    except Exception as error:  # a launcher raises what it likes for a job that died
        failure = error
    if isinstance(failure, ShardbenchError) and not read_reports(reports).keys() - before:
        raise failure
    done = [report for path, report in read_reports(reports).items() if path not in before]
    lost = _lost(jobs, done)
    _show(config, done)
    for words in lost:
        print(f"shardbench: the job {' '.join(words)} ended without a report; see {folder}", file=sys.stderr)
    if failure is not None or not done:
        reason = "no job reported" if failure is None else first_line(failure)
        print(
            f"shardbench: {names['launcher']}: {reason}; the other jobs' rows are stored, run the command again",
            file=sys.stderr,
        )
    codes = {report.exit_code for report in done} - {0}
    if lost or failure is not None or len(codes) > 1 or not done:
        return SOME_FAILED
    if codes == {2} and any(report.exit_code == 0 for report in done):
        return SOME_FAILED
    return codes.pop() if codes else 0


def _lost(jobs: Sequence[Sequence[str]] | None, done: Sequence[Report]) -> list[tuple[str, ...]]:
    """The jobs without a report; none where another sweeper alone knows what it launched."""
    if jobs is None:
        return []
    left = Counter(_task_words(job) for job in jobs)
    left.subtract(_task_words(report.words) for report in done)
    return sorted(left.elements())


def _task_words(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(word for word in words if not parsed(word).is_hydra_override()))


def _show(config: DictConfig, done: Sequence[Report]) -> None:
    """Print the rows of all jobs as one command does, and the sentences of those that were refused."""
    rows = [Row.from_dict(row) for report in sorted(done, key=lambda each: list(each.words)) for row in report.rows]
    for report in done:
        if report.error is not None:
            print(f"shardbench: {report.error}", file=sys.stderr)
    with Output(str(config["print"]), len(rows)) as output:
        for row in rows:
            output.show(row, new=True)
        output.close(sum(report.stored for report in done), str(config["results_dir"]))

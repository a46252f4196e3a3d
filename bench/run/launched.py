"""A job of ``shardbench run`` that a launcher of Hydra runs in another process, and its report to the command."""

import json
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.rows.atomic import replaced
from bench.run import runner
from bench.sweep.composer import Composer
from bench.sweep.expand import Request, without_repeats
from bench.sweep.requests import requests_of, unpacked
from engines.core.errors import ShardbenchError
from engines.core.row import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a job says when it ends: the overrides that it ran, its exit code and rows, and why it ran nothing."""

    words: Sequence[str]
    exit_code: int
    error: str | None = None
    stored: int = 0
    rows: Sequence[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class LaunchedJob:
    """The task that Hydra calls where the job was launched; sent there with pickle.

    It composes the job's overrides itself, as the command does for jobs of its own process: Hydra cannot compose lists
    of choices. ``reports`` is a folder that this process and the command both see. ``shared`` are the overrides of all
    jobs of the command where this one is a worker, which does what the other workers have not taken; None if it is a
    job of its own.
    """

    reports: str
    config_dir: str | None
    config_name: str
    shared: Sequence[Sequence[str]] | None = None
    objectives: Sequence[str] = ("latency_s",)
    asked_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    def __call__(self, config: Any) -> float | list[float]:
        """Run the job and write its report.

        Returns:
            The objective of a sweeper that searches, a list if it has several: a metric of rows (by default the
            latency in seconds), summed over the job's points, and infinite where a point has none.
        """
        from hydra.core.hydra_config import HydraConfig

        del config
        asked = HydraConfig.get().overrides
        words = unpacked([*asked.hydra, *asked.task])
        rows: list[Row] = []
        try:
            with Composer(self.config_dir, self.config_name).ready() as composer:
                asked_jobs = [words] if self.shared is None else self.shared
                requests = [request for job in asked_jobs for request in requests_of(composer, job)]
            requests, _ = without_repeats(requests)
            summary = runner.run([self._quiet(request) for request in requests])
            rows = summary.rows
            report = Report(
                words=words,
                exit_code=summary.exit_code,
                stored=summary.stored,
                rows=[row.to_dict() for row in rows],
            )
        except ShardbenchError as error:
            report = Report(words=words, exit_code=2, error=str(error))
        folder = Path(self.reports)
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(folder / f"{uuid.uuid4().hex}.json") as aside:
            aside.write_text(json.dumps(asdict(report)), encoding="utf-8")
        found = [objective(rows, name) for name in self.objectives]
        return found[0] if len(found) == 1 else found

    def _quiet(self, request: Request) -> Request:
        """The request of a job, which prints nothing.

        Workers on several hosts use each other's rows, and one that begins late those of points that failed, too.
        """
        options = replace(request.options, print="none")
        if self.shared is not None:
            options = replace(options, other_hosts=True, asked_at=self.asked_at)
        return replace(request, options=options)


def objective(rows: Iterable[Row], name: str = "latency_s") -> float:
    """A metric of all rows together; infinite if one has no time, is not valid or lacks it, or there is none."""
    values = [getattr(row, name) if row.status == "ok" and row.valid else None for row in rows]
    return math.inf if not values or None in values else math.fsum(value for value in values if value is not None)


def read_reports(folder: Path) -> dict[Path, Report]:
    """The reports of all jobs that have ended, by their files."""
    return {path: Report(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))}

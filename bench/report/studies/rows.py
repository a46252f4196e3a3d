"""The rows of a study: the points of its sweep recipe, the stored rows of these points, and what bounds each row."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from bench.rows.frontier import time_of
from bench.rows.labels import SOURCES, answered, by_source
from bench.rows.pairing import OPEN, is_open, question, stated
from bench.run.again import settings
from bench.sweep.expand import request_from
from engines.core.conf import conf_dir
from engines.core.point import Point
from engines.core.row import Row

COMMUNICATION: Final = "exposed communication"
MEMORY: Final = "memory"
COMPUTE: Final = "compute"


@dataclass(frozen=True, slots=True)
class StudyRows:
    """Rows in the order of the recipe's points; of one point the compiled row comes first.

    ``missing`` counts the points without a compiled row.
    """

    rows: Sequence[Row]
    missing: int

    @property
    def compiled(self) -> list[Row]:
        """The compiled rows."""
        return by_source(self.rows, "compiled")


class Parts(NamedTuple):
    """Seconds of one decode step, or of the whole prefill.

    ``memory_s`` is HBM traffic at full bandwidth and waiting for copies, ``compute_s`` the rest of the computation,
    and ``exposed_s`` communication that overlaps no computation.
    """

    compute_s: float
    memory_s: float
    exposed_s: float

    @property
    def bound_by(self) -> str:
        """The name of the largest of the three."""
        words = {COMPUTE: self.compute_s, MEMORY: self.memory_s, COMMUNICATION: self.exposed_s}
        return max(words, key=lambda word: words[word])


def parts_of(row: Row) -> Parts | None:
    """Where the row's time goes; None where it does not say.

    A compiled row's computation includes its HBM traffic; an analytic row states both separately.
    """
    seconds = time_of(row)
    if not seconds or not row.latency_s or row.compute_s is None or row.memory_s is None:
        return None
    exposed_s = row.details.get("exposed_s")
    if exposed_s is None:
        exposed_s = max(0.0, (row.communication_s or 0.0) - (row.overlapped_s or 0.0))
    compute_s, memory_s = row.compute_s, row.memory_s
    if row.source == "compiled":
        memory_s = min(memory_s, compute_s)
        compute_s -= memory_s
        memory_s += row.overhead_s or 0.0
    share = seconds / row.latency_s
    return Parts(compute_s * share, memory_s * share, exposed_s * share)


def points_of(recipe: str, variants: Sequence[Sequence[str]] = ((),)) -> list[Point]:
    """The points of ``conf/sweep/RECIPE.yaml``, once for each variant: overrides such as ``model=palm-8b``."""
    import hydra
    from omegaconf import OmegaConf

    points: dict[Point, None] = {}
    with hydra.initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        for words in variants:
            config: Any = OmegaConf.to_container(
                hydra.compose("config", overrides=[f"+sweep={recipe}", *words]), resolve=True
            )
            given = [word.partition("=")[0] for word in words]
            for job in request_from(config, given).jobs:
                points.update(dict.fromkeys(job.points))
    return list(points)


def find_rows(rows: Sequence[Row], points: Sequence[Point], recipe: str | None = None) -> StudyRows:
    """One compiled row of every point and, where there is one, one row of each other kind and engine.

    A row with a time that is not valid is none of them. Rows of the ``recipe`` itself come before those of others, of
    which looped programs, which the engine makes by default, come before unrolled ones. Among those, the newest of
    each settings of the engine counts, and of several settings the fastest: none hides another by its date.
    """
    found: dict[str, Row] = {}
    missing = 0
    asked_alike: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        asked_alike[stated(row)].append(row)
    for point in points:
        kinds: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in asked_alike[question(point.axes())]:
            if answers(row, point) and (answered(row) or row.status != "ok"):
                kinds[row.source, row.engine].append(row)
        mine = [_shown(each, recipe) for each in kinds.values()]
        mine.sort(key=lambda row: (row.source != "compiled", SOURCES.index(row.source)))
        if not by_source(mine, "compiled"):
            missing += point.engine == "compiled"
            continue
        found.update((row.point_id, row) for row in mine if row.source == "compiled" or answered(row))
    return StudyRows(list(found.values()), missing)


def _shown(rows: Sequence[Row], recipe: str | None) -> Row:
    """One of the rows of a kind, as :func:`find_rows` says."""

    def rank(row: Row) -> tuple[bool, bool]:
        own = row.sweep == recipe
        return own, own or not row.details.get("unrolled")

    first = max(map(rank, rows))
    mine = sorted((row for row in rows if rank(row) == first), key=lambda row: row.created_at)
    newest = {repr(settings(row)): row for row in mine}
    return min(newest.values(), key=lambda row: time_of(row) or math.inf)


def answers(row: Row, point: Point) -> bool:
    """Whether the row is an answer to the point, of whatever engine. Keys that the point leaves open, the engine chose.

    A published row may state an open key; it must state the keys that the point states. A row of before a key was one
    was asked with its default.
    """
    asked = point.axes()
    if stated(row) != question(asked):
        return False
    for key in OPEN:
        if asked[key] in (None, "auto"):
            if row.source != "published" and not is_open(row, key):
                return False
        elif getattr(row, key) != asked[key]:
            return False
    return True

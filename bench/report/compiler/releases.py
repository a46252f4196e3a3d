"""The releases of a compiler that nights were compiled with, and what each changed of a program."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.compare.nights.read import Night
from bench.compare.verdicts import EXACT, label, question
from bench.rows.frontier import time_of
from bench.rows.labels import by_source, model_label
from engines.core.row import Row
from engines.core.versions import JAX_LIBRARIES

Question = tuple[Any, ...]
UNKNOWN: Final = "unknown"
OF_TPU: Final = "libtpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """``rows`` are the compiled answers of the last night with these ``versions`` and this code, by question.

    ``label`` names those libraries whose versions differ between releases. ``code`` is the commit of the source that
    made, read and timed the programs.
    """

    day: str
    label: str
    versions: Mapping[str, str]
    code: str
    rows: dict[Question, Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A figure of a compiled row: its name in sentences, and the unit that tables print it in."""

    key: str
    name: str
    unit: str
    scale: float

    def of(self, row: Row | None) -> float | None:
        """The figure in SI units; None where the row has none."""
        if row is None or row.status != "ok":
            return None
        if self.key == "time_s":
            return time_of(row)
        if self.key == "hbm_bytes_moved":
            return row.details.get(self.key)
        value: float | None = getattr(row, self.key)
        return value


QUANTITIES: Final = (
    Quantity(key="time_s", name="time", unit="ms", scale=1e3),
    Quantity(key="hbm_bytes_moved", name="HBM traffic", unit="GB", scale=1e-9),
    Quantity(key="communication_s", name="communication", unit="ms", scale=1e3),
    Quantity(key="activations_bytes", name="temporary memory", unit="MB", scale=1e-6),
)
"""Time is that of a decode step or of a prefill; the others are of the whole phase, on one chip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A release multiplied a quantity of a program by ``ratio``, over the last release that had answered it.

    ``program`` is the point, ``row`` the release's answer. ``of_code``: its commit differs too.
    """

    release: Release
    before: Release
    program: Question
    row: Row
    quantity: Quantity
    ratio: float
    of_code: bool


def releases_of(nights: Sequence[Night]) -> list[Release]:
    """The releases in the order of their nights (oldest first); nights without a compiled row are none.

    Of nights in a row with the same versions and code, the last stands, on the date of the first.
    """
    found: list[Release] = []
    for night in nights:
        rows = {question(row): row for row in by_source(night.rows, "compiled")}
        if not rows:
            continue
        newest = list(rows.values())[-1]
        versions: dict[str, str] = {name: newest.versions[name] for name in JAX_LIBRARIES if name in newest.versions}
        release = Release(day=night.day, label="", versions=versions, code=_commit(newest), rows=rows)
        if found and (found[-1].versions, found[-1].code) == (versions, release.code):
            release = Release(day=found[-1].day, label="", versions=versions, code=release.code, rows=rows)
            found.pop()
        found.append(release)
    return _labelled(found)


def program_labels(releases: Sequence[Release]) -> dict[Question, str]:
    """Every point in few words, ``PaLM 540B on 64 tpu-v4, decode at batch 64``; in more where that is two points."""
    programs = questions_of(releases)
    short = {
        key: f"{model_label(row.model)} on {row.num_chips} {row.hw}, {row.phase} at batch {row.batch_size}"
        for key, row in programs.items()
    }
    times = Counter(short.values())
    return {key: each if times[each] == 1 else label(programs[key]) for key, each in short.items()}


def questions_of(releases: Sequence[Release]) -> dict[Question, Row]:
    """Every point that was asked, with the first row of it."""
    found: dict[Question, Row] = {}
    for release in releases:
        for key, row in release.rows.items():
            found.setdefault(key, row)
    return found


def changes(releases: Sequence[Release], quantity: Quantity) -> Iterator[Change]:
    """What each release changed of a quantity, over the release before it that had answered the point."""
    before: dict[Question, tuple[Release, float]] = {}
    for release in releases:
        for key, row in release.rows.items():
            now = quantity.of(row)
            if now is None:
                continue
            then = before.get(key)
            if then is not None and then[1] > 0 and abs(now / then[1] - 1) > EXACT:
                yield Change(
                    release=release,
                    before=then[0],
                    program=key,
                    row=row,
                    quantity=quantity,
                    ratio=now / then[1],
                    of_code=then[0].code != release.code,
                )
            before[key] = release, now


def _commit(row: Row) -> str:
    return (row.git_sha or UNKNOWN) + "-dirty" * bool(row.git_dirty)


def _labelled(releases: Sequence[Release]) -> list[Release]:
    """With labels of the libraries that differ; where none does, of the compiler alone."""
    names = [name for name in JAX_LIBRARIES if len({each.versions.get(name) for each in releases}) > 1]
    if "jax" in names and "jaxlib" in names:
        names.remove("jaxlib")  # they are released together
    if not names:
        names = [name for name in (OF_TPU, *reversed(JAX_LIBRARIES)) if any(name in r.versions for r in releases)][:1]
    return [
        Release(
            day=each.day,
            label=", ".join(f"{name} {each.versions.get(name, UNKNOWN)}" for name in names) or UNKNOWN,
            versions=each.versions,
            code=each.code,
            rows=each.rows,
        )
        for each in releases
    ]

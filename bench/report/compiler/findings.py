"""What the releases of a compiler did: one sentence with one figure each, computed from the rows."""

import math
from collections.abc import Sequence
from typing import Any, Final

from bench.report.compiler.releases import (
    QUANTITIES,
    Change,
    Quantity,
    Release,
    changes,
    program_labels,
    questions_of,
)
from bench.report.main.findings import Finding
from bench.rows.counted import counted

SOURCES: Final = ("compiled",)
SMALLEST: Final = 1e-4
"""The smallest change that is printed as a number."""


def release_findings(releases: Sequence[Release]) -> list[Finding]:
    """The whole span, then what a release changed most of each quantity, then what was refused."""
    if len(releases) == 1:
        sentence = f"One release is stored, {releases[0].label}: a second one makes a history."
        return [Finding("releases", SOURCES, sentence, {"releases": 1})]
    found = [*_span(releases)]
    for quantity in QUANTITIES:
        found.append(_largest(releases, quantity))
    return [*found, *_refused(releases)]


def size(ratio: float) -> str:
    """A ratio as a change in percent: ``+1.20%``; a change of many times as ``3.4 times``."""
    if abs(ratio - 1) < SMALLEST / 2:
        return f"less than {SMALLEST:.2%}"
    return f"{ratio:.3g} times" if ratio >= 2 else f"{ratio - 1:+.2%}"


def _span(releases: Sequence[Release]) -> list[Finding]:
    """How the time of each program moved from the first release that answered it to the last."""
    ratios = dict[str, float]()
    for key, name in program_labels(releases).items():
        times = [time for each in releases if (time := QUANTITIES[0].of(each.rows.get(key))) is not None]
        if len(times) > 1:
            ratios[name] = times[-1] / times[0]
    if not ratios:
        return []
    most = max(ratios, key=lambda each: abs(math.log(ratios[each])))
    sentence = (
        f"Over {len(releases)} releases, {releases[0].label} to {releases[-1].label}, the time that moved the most is "
        f"that of {most}: {size(ratios[most])}."
    )
    return [Finding("all releases", SOURCES, sentence, ratios)]


def _largest(releases: Sequence[Release], quantity: Quantity) -> Finding:
    """The largest change of a quantity by one release."""
    found = list(changes(releases, quantity))
    topic = f"{quantity.name} by release"
    if not found:
        sentence = f"No release changed the {quantity.name} of any program."
        return Finding(topic, SOURCES, sentence, {"changes": 0})
    names = program_labels(releases)
    change = max(found, key=lambda each: abs(math.log(each.ratio)))
    numbers: dict[str, Any] = {f"{each.release.label}: {names[each.program]}": each.ratio for each in found}
    sentence = (
        f"{change.release.label} changed {quantity.name} the most: {size(change.ratio)} for "
        f"{names[change.program]}{cause(change)}."
    )
    return Finding(topic, SOURCES, sentence, numbers)


def cause(change: Change) -> str:
    """What else than the compiler may be the reason; nothing where it alone differs."""
    return f" (the commit is another than under {change.before.label}, too)" * change.of_code


def _refused(releases: Sequence[Release]) -> list[Finding]:
    """The program that most releases did not answer, with its newest status."""
    refusals = {
        key: [(each, each.rows[key]) for each in releases if key in each.rows and each.rows[key].status != "ok"]
        for key in questions_of(releases)
    }
    worst = max(refusals, key=lambda key: len(refusals[key]), default=None)
    if worst is None or not refusals[worst]:
        return [Finding("refused programs", SOURCES, "Every release answered every program.", {"refused": 0})]
    names, (release, row) = program_labels(releases), refusals[worst][-1]
    sentence = (
        f"{names[worst]} has no answer under {counted(len(refusals[worst]), 'release')} of {len(releases)}, "
        f"the newest of them {release.label} ({row.status})."
    )
    numbers = {names[key]: len(found) for key, found in refusals.items() if found}
    return [Finding("refused programs", SOURCES, sentence, numbers)]

"""All constants, fitted anew to the published rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from bench.sweep.catalog import load_group, names
from bench.sweep.runtimes import load_runtime
from bench.validate.case import Case
from bench.validate.errors import figures_of
from engines.analytic.calibration import KINDS, Fit, LeftOut, Measured, fit, leave_one_source_out
from engines.analytic.constants import BEST_OF, BOUNDS, CALIBRATED_FOR, OWNER
from engines.analytic.priors import CHIPS, RUNTIMES, USUAL, Prior
from engines.analytic.uncertainty import TERMS, held_by, spread_of, term_covariance
from engines.core.runtime import AUTO, BEST

BEST_TAKES: Final[Mapping[str, Any]] = {
    "layer_s": min,
    "step_s": min,
    "collective_s": min,
    "sampling_s_per_logit": min,
    "vector_passes": min,
    "network_collective_s": min,
    "stage_s": min,
    "roofline_overlap": max,
    "stream_int8": max,
    "stream_int4": max,
    "stream_float8": max,
    "matmul_float8": max,
}
"""Constants of ``best`` that are the least, or the most, of the runtimes that rows tell of; the others are as usual."""
KNOWN: Final = 0.8
"""A runtime's constant is told by rows where they leave less than this share of its prior's width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindFit:
    """The fit to the rows of one kind of chip, and what it errs on sources that it was fitted without."""

    kind: str
    rows: Sequence[Measured]
    places: Sequence[tuple[str, int]]
    """File and line of each row."""
    fit: Fit
    left_out: Sequence[LeftOut]

    @property
    def chips(self) -> list[str]:
        """The chips with rows."""
        return list(dict.fromkeys(row.point.chip.name for row in self.rows))

    @property
    def runtimes(self) -> list[str]:
        """Every runtime for that kind, with rows or without."""
        return [
            name
            for name in names("runtime")
            if name != AUTO and self.kind in load_group("runtime", name)["limits"]["kinds"]
        ]

    @property
    def own_runtimes(self) -> list[str]:
        """Those whose constants this kind sets: where a runtime is for several, the first of them."""
        return [name for name in self.runtimes if load_group("runtime", name)["limits"]["kinds"][0] == self.kind]


def fit_published(cases: Sequence[Case]) -> list[KindFit]:
    """One fit a kind of chip; a source is a table, and each case is of its own runtime.

    Raises:
        ShardbenchError: no constants within their bounds explain the rows.
    """
    found = []
    for kind in KINDS:
        timed = [
            (case, case.latency_s) for case in cases if case.latency_s is not None and case.point.chip.kind == kind
        ]
        rows = [
            Measured(
                point=replace(case.point, runtime=load_runtime(case.runtime)),
                latency_s=seconds,
                source=case.file.removesuffix(".csv"),
            )
            for case, seconds in timed
        ]
        found.append(
            KindFit(
                kind=kind,
                rows=rows,
                places=[(case.file, case.line) for case, _ in timed],
                fit=fit(rows),
                left_out=leave_one_source_out(rows),
            )
        )
    return found


def chip_content(found: KindFit, chip: str) -> dict[str, Any]:
    """``constants/CHIP.yaml``; of a kind's own file (``gpu``) the medians, which chips without rows take."""
    rows = [row for row in found.rows if chip in (row.point.chip.name, found.kind)]
    mine = np.asarray([chip in (row.point.chip.name, found.kind) for row in found.rows])
    sources: dict[str, int] = {}
    for row in rows:
        sources[row.source] = sources.get(row.source, 0) + 1
    constants = [name for name in BOUNDS if OWNER[name] == "chip" and name in CHIPS[found.kind]]
    values = found.fit.constants(chip, BEST)
    return {
        "chip": chip,
        "constants": {name: short(values[name]) for name in constants},
        "rows": sources,
        "residuals": _figures(found.fit.errors[mine]),
        "leave_one_source_out": {
            each.source: _figures(each.errors) for each in found.left_out if each.source in sources
        },
        "about": {name: _about(found, chip, BEST, name, CHIPS[found.kind][name].median) for name in constants},
    }


def runtime_constants(found: KindFit, runtime: str) -> dict[str, Any]:
    """The constants of ``conf/runtime/NAME.yaml``: those that rows tell, or its own priors."""
    chip = found.chips[0]
    values = found.fit.constants(chip, runtime)
    own = RUNTIMES.get(runtime, {})
    constants = {}
    for name in (name for name in BOUNDS if OWNER[name] == "runtime"):
        prior = own.get(name, USUAL[found.kind].get(name))
        about = _about(found, chip, runtime, name, prior)
        told = runtime == BEST_OF[found.kind] or name in own or about["set_by"]
        if told and prior is not None:
            constants[name] = {"value": short(values[name]), **about}
    return constants


def best_constants(found: KindFit) -> dict[str, Any]:
    """The constants of ``best``: of each the best that a runtime reaches (:data:`BEST_TAKES`), else the usual."""
    constants = {}
    chip = found.chips[0]
    for name, prior in USUAL[found.kind].items():
        about = {
            "value": prior.value,
            "prior": prior.value,
            "uncertainty": prior.width,
            "source": prior.why,
            "set_by": {},
        }
        told = {runtime: each for runtime in found.runtimes if (each := _told(found, chip, runtime, name)) is not None}
        if name in BEST_TAKES and told:
            runtime = BEST_TAKES[name](told, key=lambda each: told[each])
            about = {
                **_about(found, chip, runtime, name, prior),
                "value": short(told[runtime]),
                "source": prior.why if runtime == BEST else f"as {runtime} reaches it; {prior.why}",
            }
            about = {"value": about.pop("value"), **about}
        constants[name] = about
    return constants


def _told(found: KindFit, chip: str, runtime: str, name: str) -> float | None:
    names_ = found.fit.priors.value(found.kind, chip, runtime, name).names
    if not names_ or not found.fit.set_by(chip, runtime, name):
        return None
    width = sum(found.fit.priors.width[each] ** 2 for each in names_) ** 0.5
    if found.fit.uncertainty(chip, runtime, name) > KNOWN * width:
        return None
    return found.fit.constants(chip, runtime)[name]


def uncertainty_content(found: Sequence[KindFit]) -> dict[str, Any]:
    """``constants/uncertainty.yaml``: each runtime's spread, and for each chip the covariance of a time's terms."""
    content: dict[str, Any] = {}
    for each in found:
        upper = np.triu_indices(len(TERMS))
        content[each.kind] = {
            "spread": short(spread_of(each.left_out)),
            "held": {source: round(share, 3) for source, share in held_by(each.left_out).items()},
            "runtimes": {
                runtime: {
                    "spread": short(spread_of(each.left_out, runtime)),
                    "terms": {
                        chip: [float(f"{v:.3g}") for v in term_covariance(each.fit, chip, runtime)[upper]]
                        for chip in (*each.chips, CALIBRATED_FOR[each.kind])
                    },
                }
                for runtime in each.runtimes
            },
        }
    return content


def residual_lines(found: Sequence[KindFit]) -> list[str]:
    """``constants/left_out.csv``: of each row the error in the fit, and of a fit without its source."""
    lines = ["file,line,model,hw,runtime,phase,batch_size,input_len,output_len,latency_s,error,error_left_out"]
    for each in found:
        told = {source.source: iter(source.errors) for source in each.left_out}
        for row, (file, line), error in zip(each.rows, each.places, each.fit.errors, strict=True):
            point = row.point
            runtime = BEST if point.runtime is None else point.runtime.name
            lines.append(
                f"{file},{line},{point.model.name},{point.chip.name},{runtime},{point.phase},{point.batch_size},"
                f"{point.input_len},{point.output_len},{row.latency_s},{error:+.4f},{next(told[row.source]):+.4f}"
            )
    return lines


def _about(found: KindFit, chip: str, runtime: str, name: str, prior: Prior | None) -> dict[str, Any]:
    return {
        "prior": None if prior is None else short(prior.value),
        "uncertainty": short(found.fit.uncertainty(chip, runtime, name)),
        "source": "" if prior is None else prior.why,
        "set_by": found.fit.set_by(chip, runtime, name),
    }


def _figures(errors: Any) -> dict[str, Any]:
    return {name: None if value is None else short(value) for name, value in figures_of(errors).items()} | {
        "rows": len(errors)
    }


def short(value: float) -> float:
    """Rounded to four digits, the precision of the rows."""
    return float(f"{value:.4g}")

"""``shardbench calibrate``: fit the constants of the analytic or the compiled engine to measured times."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.cli.args import PRINT, Key
from bench.cli.values import FilePath, Integer, ListOf
from bench.validate.case import Case
from bench.validate.data import read_data
from bench.validate.errors import figures_of
from bench.validate.throughput import TOKENS
from bench.validate.unused import unused_lines
from engines.analytic.calibration import PRIORS, STATED, Fit, fit, kind_of, leave_one_model_out
from engines.analytic.constants import BOUNDS, STORED
from engines.core.errors import InvalidRequest
from engines.core.text import significant

SUMMARY: Final = "fit the constants of the analytic or the compiled engine to measured times"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key("hw", "tpu-v4", "the chip to fit, one of conf/hw"),
    Key("engine", "analytic", "whose constants: compiled has those of a TPU's links", ("analytic", "compiled")),
    Key("num_chips", 8, "of engine=compiled: the slice that runs the small programs", kind=Integer(1)),
    Key(
        "data",
        None,
        "a CSV file, a glob, a folder of CSV files or rows, a published table by name, or a list of these "
        "(default: all published)",
        kind=ListOf(FilePath()),
    ),
    TOKENS,
    Key(
        "out",
        None,
        "file to write, or package for the folder of the engine's constants (default: only print)",
        kind=FilePath(),
    ),
    PRINT,
)
EXAMPLES: Final = (
    "shardbench calibrate hw=a100-80gb",
    "shardbench calibrate hw=tpu-v4 out=package",
    "shardbench calibrate hw=h100-80gb data=mine.csv out=h100-80gb.yaml print=json",
    "shardbench calibrate engine=compiled hw=tpu-v5e num_chips=16 out=small-programs.csv",
    "shardbench calibrate engine=compiled hw=tpu-v5e data=small-programs.csv",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Fit and print the constants; write them if ``out`` is set. Returns 0."""
    del verb
    chip = settings["hw"]
    if settings["engine"] == "compiled":
        from bench.cli.calibrate_links import calibrate_links

        return calibrate_links(chip, settings["num_chips"], settings["data"], settings["out"])
    reading = read_data(settings["data"], "analytic", settings["tokens"])
    for line in unused_lines(reading.unused):
        print(line, file=sys.stderr)
    cases = [case for case in reading.cases if case.point.chip.name == chip and case.latency_s is not None]
    if not cases:
        raise InvalidRequest("hw", chip, "the data has no times for this chip", "use data= with rows of this chip")
    points = [case.point for case in cases]
    measured = np.asarray([case.latency_s for case in cases])
    found = fit(points, measured)
    held_out = {name: _figures(errors) for name, errors in leave_one_model_out(points, measured).items()}
    content = _content(chip, cases, found, held_out)
    if settings["out"]:
        path = _output_path(settings["out"], chip)
        _write(path, content)
        _write_residuals(path.with_suffix(".residuals.csv"), cases, found)
        print(f"wrote {path} and its residuals", file=sys.stderr)
    if settings["print"] == "json":
        print(json.dumps(content))
    else:
        _print(content)
    return 0


def _figures(errors: Any) -> dict[str, Any]:
    return {name: _short(value) for name, value in figures_of(errors).items()} | {"rows": len(errors)}


def _content(chip: str, cases: Sequence[Case], found: Fit, held_out: Mapping[str, Any]) -> dict[str, Any]:
    kind = kind_of([case.point for case in cases])
    set_by = found.set_by([f"{case.point.model.name} {case.parallelism} {case.point.phase}" for case in cases])
    rows: dict[str, int] = {}
    for case in cases:
        label = f"{case.reference}: {case.point.model.name}"
        rows[label] = rows.get(label, 0) + 1
    return {
        "chip": chip,
        "constants": {
            **{name: _short(value) for name, value in found.fitted.items()},
            **{name: each.value for name, each in STATED[kind].items()},
        },
        "rows": rows,
        "residuals": _figures(found.errors),
        "leave_one_model_out": dict(held_out),
        "fitted": {
            name: {
                "within": [BOUNDS[name].low, BOUNDS[name].high],
                "prior": prior.value,
                "prior_from": prior.why,
                "uncertainty": _short(found.uncertainty[name]),
                "set_by": set_by[name],
            }
            for name, prior in PRIORS[kind].items()
        },
        "stated": {name: each.why for name, each in STATED[kind].items()},
    }


def _short(value: float | None) -> float | None:
    """Rounded to four digits, the precision of the rows."""
    return None if value is None else float(f"{value:.4g}")


def _output_path(out: str, chip: str) -> Path:
    return STORED / f"{chip}.yaml" if out == "package" else Path(out)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    from omegaconf import OmegaConf

    chip = content["chip"]
    heading = f"# Constants of the analytic engine for {chip}, made by: shardbench calibrate hw={chip}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(heading + OmegaConf.to_yaml(OmegaConf.create(dict(content))), encoding="utf-8")
    except OSError as error:
        raise InvalidRequest("out", path, f"cannot be written ({error.strerror})", "use a writable file") from None


def _write_residuals(path: Path, cases: Sequence[Case], found: Fit) -> None:
    lines = ["file,line,model,parallelism,phase,batch_size,input_len,output_len,latency_s,error"]
    for case, error in zip(cases, found.errors, strict=True):
        point = case.point
        lines.append(
            f"{case.file},{case.line},{point.model.name},{case.parallelism},{point.phase},{point.batch_size},"
            f"{point.input_len},{point.output_len},{case.latency_s},{error:+.4f}"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _print(content: Mapping[str, Any]) -> None:
    from bench.run import terminal

    console = terminal.console()
    table = terminal.table(title=f"constants of {content['chip']}")
    for heading in ("constant", "value", "within", "prior", "uncertainty", "set by"):
        table.add_column(heading, overflow="fold")
    for name, value in content["constants"].items():
        about = content["fitted"].get(name)
        if about is None:
            table.add_row(name, significant(value, 4), "", "", "", f"stated: {content['stated'][name]}")
            continue
        groups = ", ".join(f"{group} {share:.0%}" for group, share in about["set_by"].items())
        low, high = about["within"]
        table.add_row(
            name,
            significant(value, 4),
            f"{significant(low)}..{significant(high)}",
            significant(about["prior"]),
            f"±{about['uncertainty']:.0%}",
            groups,
        )
    console.print(table)
    for label, count in content["rows"].items():
        console.print(f"{count} rows: {label}")
    for title, found in (("residuals", content["residuals"]), *content["leave_one_model_out"].items()):
        name = title if title == "residuals" else f"{title}, constants fitted without it"
        console.print(
            f"{name}: mean {found['mape']:.1%}, median {found['median_ape']:.1%}, p90 {found['p90_ape']:.1%}, "
            f"worst {found['worst_ape']:.1%}, bias {found['bias']:+.1%}, {found['rows']} rows"
        )

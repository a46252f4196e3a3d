"""``shardbench calibrate engine=compiled``: small programs on a slice that is absent or here, and what they set."""

import csv
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.sweep.catalog import load_chip
from engines.compiled.calibration.suite import CalibrationRow, cells_of
from engines.compiled.cost.constants import link_constants_of
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.slice import Slice, slice_of

if TYPE_CHECKING:
    from engines.compiled.calibration.links import FittedConstants


def calibrate_links(hw: str, num_chips: int, data: Sequence[str] | None, out: str | None) -> int:
    """Fit link constants to a table of measured small programs; without one, write that table. Returns 0.

    Raises:
        InvalidRequest: the table lacks a column, or rows enough; ``out`` cannot be written.
        Unsupported: the chip is no TPU.
    """
    if load_chip(hw).kind != "tpu":
        raise Unsupported(f"hw={hw}: engine=compiled has link constants for TPUs alone; use engine=analytic")
    if data is not None:
        rows = [row for path in data for row in read_rows(Path(path))]
        _write_constants(hw, [row for row in rows if row.hw == hw], out)
        return 0
    rows = _small_programs(slice_of(load_chip(hw), num_chips))
    table = [cells_of(row) for row in rows]
    with _opened(out) as file:
        writer = csv.DictWriter(file, [each.name for each in fields(CalibrationRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    if not any(row.measured_s for row in rows):
        print(f"no {hw} is here: the rows are compiled, and none is measured", file=sys.stderr)
    return 0


def read_rows(path: Path) -> list[CalibrationRow]:
    """The rows of a table that this command wrote.

    Raises:
        InvalidRequest: the file cannot be read, or is another table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_row_of(cells) for cells in csv.DictReader(file)]
    except OSError as error:
        raise InvalidRequest("data", path, f"cannot be read ({error.strerror})", "give the table's file") from None
    except (KeyError, ValueError, UnicodeDecodeError) as error:
        remedy = "give a table that shardbench calibrate engine=compiled wrote"
        raise InvalidRequest("data", path, f"is no table of small programs ({error})", remedy) from None


def _row_of(cells: Mapping[str, str]) -> CalibrationRow:
    values: dict[str, Any] = {}
    for each in fields(CalibrationRow):
        text = cells[each.name]
        if each.type in (str, "str"):
            values[each.name] = text
        else:
            values[each.name] = float(text) if text else None
    return CalibrationRow(**values)


def _small_programs(slice_: Slice) -> list[CalibrationRow]:
    """Every program compiled for the slice, and timed if its devices are here."""
    present = _present_mesh(slice_)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from engines.compiled.calibration.programs import programs
    from engines.compiled.calibration.suite import measured_s, row_of
    from engines.compiled.target.select import target_of

    mesh = target_of(slice_).make_mesh()
    rows = []
    for program in programs(mesh):
        row = row_of(slice_, program, mesh)
        if present is not None and not row.error:
            row = replace(row, measured_s=measured_s(program, present))
        rows.append(row)
    return rows


def _present_mesh(slice_: Slice) -> Any:
    """The mesh of the devices of this process if they are the slice, else None."""
    import jax

    from engines.compiled.target.select import target_of

    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return None
    devices = jax.devices()
    target = target_of(slice_)
    if devices[0].device_kind not in slice_.chip.device_names or len(devices) != slice_.num_chips * target.cores:
        return None
    wanted = target.make_mesh()
    here = {(*each.coords, each.core_on_chip): each for each in devices}
    import numpy as np

    places = [here[(*each.coords, each.core_on_chip)] for each in wanted.devices.flat]
    return jax.sharding.Mesh(np.array(places).reshape(wanted.devices.shape), wanted.axis_names)


def _write_constants(hw: str, rows: Sequence[CalibrationRow], out: str | None) -> None:
    from engines.compiled.calibration.links import fit_links

    found = fit_links(rows)
    with _opened(out) as file:
        file.write(constants_text(hw, found))
    before = link_constants_of(load_chip(hw)).constants
    print(
        f"{found.rows} collectives of {hw}: mean error {found.left_out_error:.1%} of rows left out of the fit, "
        f"{found.before_error:.1%} with the constants before ({before})",
        file=sys.stderr,
    )


def constants_text(hw: str, found: "FittedConstants") -> str:
    """The constants as the part of ``conf/hw/<hw>.yaml`` that replaces the defaults."""
    lines = "".join(
        f"  {key}: {value:.4g}\n"
        for key, value in (
            ("link_efficiency", found.constants.link_efficiency),
            ("hop_s", found.constants.hop_s),
            ("launch_s", found.constants.launch_s),
        )
    )
    return f"# in conf/hw/{hw}.yaml, with link_constants under sources too\nlink_constants:\n{lines}"


def _opened(out: str | None) -> Any:
    from contextlib import nullcontext

    if out is None:
        return nullcontext(sys.stdout)
    try:
        return Path(out).open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise InvalidRequest("out", out, f"cannot be written ({error.strerror})", "use a writable file") from None

"""The files of the constants that shardbench comes with, written from a fit to the published rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.calibrate.published import (
    KindFit,
    best_constants,
    chip_content,
    residual_lines,
    runtime_constants,
    uncertainty_content,
)
from bench.validate.left_out import FILE as LEFT_OUT
from engines.analytic.constants import BEST_OF, CALIBRATED_FOR, STORED
from engines.analytic.uncertainty import FILE
from engines.core.conf import conf_dir
from engines.core.runtime import BEST

MADE_BY = "made by: shardbench calibrate out=package"


def write_package(found: Sequence[KindFit], stored: Path = STORED, conf: Path | None = None) -> list[Path]:
    """Write the chips' constants, the runtimes', and the uncertainty; returns the files."""
    folder = (conf_dir() if conf is None else conf) / "runtime"
    written = []
    for each in found:
        for chip in (*each.chips, CALIBRATED_FOR[each.kind]):
            heading = f"# Constants of the closed forms for {chip}, {MADE_BY}\n"
            written.append(_write(stored / f"{chip}.yaml", heading, chip_content(each, chip)))
        for runtime in each.own_runtimes:
            if runtime == BEST and BEST_OF[each.kind] != BEST:
                continue
            constants = best_constants(each) if runtime == BEST else runtime_constants(each, runtime)
            written.append(_rewrite(folder / f"{runtime}.yaml", constants))
    heading = f"# How sure the closed forms are, {MADE_BY}\n"
    written.append(_write(stored / f"{FILE}.yaml", heading, uncertainty_content(found)))
    lines = stored / LEFT_OUT
    lines.write_text("\n".join(residual_lines(found)) + "\n", encoding="utf-8")
    return [*written, lines]


def _rewrite(path: Path, constants: Mapping[str, Any]) -> Path:
    """Replace the constants of a runtime's file; its heading, name, limits and sources stay."""
    from omegaconf import OmegaConf

    text = path.read_text(encoding="utf-8")
    heading = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    content: Any = OmegaConf.to_container(OmegaConf.create(text))
    kept = {key: value for key, value in content.items() if key not in ("constants", "sources")}
    return _write(path, heading, {**kept, "constants": constants, "sources": content.get("sources") or {}})


def _write(path: Path, heading: str, content: Mapping[str, Any]) -> Path:
    from omegaconf import OmegaConf

    path.write_text(heading + OmegaConf.to_yaml(OmegaConf.create(dict(content))), encoding="utf-8")
    return path

"""A user's constants as a runtime of his own config folder."""

from pathlib import Path
from typing import Any

from bench.calibrate.own import OwnFit
from engines.analytic.constants import BOUNDS, OWNER
from engines.core.conf import conf_dir
from engines.core.errors import InvalidRequest


def content_of(found: OwnFit, name: str, data: str) -> dict[str, Any]:
    """The plain values of ``runtime/NAME.yaml``: the limits of the runtime that was fitted, and all constants.

    Those of the chip stand under its name in ``on_chip``, as they were reached there under this runtime.
    """
    rows = found.rows
    chip, runtime = rows.chip.name, rows.runtime
    values = found.fit.constants(chip, runtime.name)
    constants: dict[str, Any] = {}
    on_chip: dict[str, Any] = {}
    for key in BOUNDS:
        set_by = found.fit.set_by(chip, runtime.name, key)
        about = {
            "value": _short(values[key]),
            "prior": _short(found.start[key]),
            "uncertainty": _short(found.fit.uncertainty(chip, runtime.name, key)),
            "source": f"{len(rows.cases)} rows of {data}" if set_by else f"as in {runtime.name}",
            "set_by": set_by,
        }
        (on_chip if OWNER[key] == "chip" else constants)[key] = about
    limits = {key: _plain(getattr(runtime.limits, key)) for key in runtime.limits.__slots__}
    return {
        "name": name,
        "limits": {key: value for key, value in limits.items() if value is not None},
        "constants": constants,
        "on_chip": {chip: on_chip},
        "sources": {"constants": f"shardbench calibrate, from {runtime.name} and {len(rows.cases)} rows of {data}"},
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the file.

    Raises:
        InvalidRequest: it cannot be written, or its name is one of ours, under which it would be taken for that.
    """
    from omegaconf import OmegaConf

    if (conf_dir() / "runtime" / path.name).is_file():
        raise InvalidRequest("out", path, f"has the name of our own runtime {path.stem}", "use another name")
    heading = (
        f"# {content['sources']['constants']}.\n"
        f"# In a folder runtime/ of SHARDBENCH_CONFIG_DIR it is runtime={content['name']}.\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(heading + OmegaConf.to_yaml(OmegaConf.create(content)), encoding="utf-8")
    except OSError as error:
        raise InvalidRequest("out", path, f"cannot be written ({error.strerror})", "use a writable file") from None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _short(value: float) -> float:
    return float(f"{value:.4g}")

"""``shardbench env``: the git revision, versions, machine and settings in use."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.cli.args import PRINT, RESULTS_DIR, Key

SUMMARY: Final = "show what a row records of here (git revision, versions, machine, flags), extras, results folder"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    RESULTS_DIR,
    Key("devices", False, "also list the devices of JAX, in a separate process (takes seconds)"),
    PRINT,
)
EXAMPLES: Final = ("shardbench env", "shardbench env devices=true print=json")
DEVICES: Final = """
import json, jax
kinds = [device.device_kind for device in jax.devices()]
print(json.dumps({"platform": jax.default_backend(), "count": len(kinds), "kinds": sorted(set(kinds))}))
"""
TIMEOUT_S: Final = 120.0


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Print the environment. Returns 0."""
    del verb
    from bench.run.conditions import variables
    from bench.run.environment import cpu_affinity, read_environment
    from bench.run.extras import extras
    from bench.run.wandb_mode import resolved_mode
    from bench.storage.place import place_of, scheme_of
    from engines.core.versions import XLA_FLAGS

    place = place_of(settings["results_dir"])
    is_url = scheme_of(place) is not None
    content: dict[str, Any] = {
        **asdict(read_environment()),
        "cpu_affinity": cpu_affinity(),
        "xla_flags": os.environ.get(XLA_FLAGS, ""),
        "variables": variables(os.environ),
        "extras": extras(),
        "wandb_mode": resolved_mode("auto"),
        "results_dir": str(place if is_url else place.resolve()),
        "results_dir_exists": _has_rows(place) if is_url else place.is_dir(),
    }
    if settings["devices"]:
        content["devices"] = _devices()
    if settings["print"] == "json":
        print(json.dumps(content))
        return 0
    width = max(map(len, content)) + 2
    for key, value in content.items():
        for line, text in enumerate(_lines(key, value)):
            print(f"{'' if line else key:<{width}}{text}")
    return 0


def _has_rows(place: Path) -> bool:
    """Whether an object store answers, and has rows there."""
    from bench.storage.choose import storage_of

    try:
        return bool(storage_of(place).names(place / "rows"))
    except OSError:
        return False


def _lines(key: str, value: Any) -> list[str]:
    """A value as text, on one or several lines."""
    if key == "extras":
        return [f"{name}: {'installed' if present else 'not installed'}" for name, present in value.items()]
    if isinstance(value, Mapping):
        return [f"{name} {text}" for name, text in value.items()] or ["none"]
    if key == "gpus":
        return list(value) or ["none"]
    if key == "cpu_affinity":
        return [",".join(map(str, value))]
    if key == "cpu_quota":
        return ["no limit" if value is None else f"{value:g} cores"]
    if key == "xla_flags":
        return [value or "none"]
    if key == "memory_bytes" and value is not None:
        return [f"{value / 2**30:.1f} GiB"]
    if key == "cache_bytes" and value is not None:
        return [f"{value / 2**20:.1f} MiB"]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return ["unknown" if value is None else str(value)]


def _devices() -> dict[str, Any]:
    """Platform, number and kinds of JAX's devices, read in a child: the process that initialises them holds them."""
    from engines.core.errors import ShardbenchError, TimedOut
    from engines.host.program import ExternalProgram
    from engines.host.python import code_words

    try:
        printed = ExternalProgram(code_words(DEVICES), Path.cwd(), TIMEOUT_S).run()
        found: dict[str, Any] = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
    except TimedOut:
        return {"error": f"JAX found no devices within {TIMEOUT_S:g} s"}
    except (ShardbenchError, StopIteration, ValueError) as error:
        return {"error": f"JAX failed: {error}"}
    return found

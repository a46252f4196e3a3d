"""``shardbench env``: the git revision, versions, machine and settings in use."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from bench.cli.args import PRINT, RESULTS_DIR, Key

SUMMARY: Final = "show git revision, versions, machine, installed extras and the results folder"
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
    from pathlib import Path

    from bench.run.environment import read_environment
    from bench.run.extras import extras
    from bench.run.tracking import resolved_mode

    folder = Path(settings["results_dir"])
    content: dict[str, Any] = {
        **asdict(read_environment()),
        "extras": extras(),
        "wandb_mode": resolved_mode("auto"),
        "results_dir": str(folder.resolve()),
        "results_dir_exists": folder.is_dir(),
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


def _lines(key: str, value: Any) -> list[str]:
    """A value as text, on one or several lines."""
    if key == "extras":
        return [f"{name}: {'installed' if present else 'not installed'}" for name, present in value.items()]
    if isinstance(value, Mapping):
        return [f"{name} {text}" for name, text in value.items()]
    if key == "memory_bytes" and value is not None:
        return [f"{value / 2**30:.1f} GiB"]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return ["unknown" if value is None else str(value)]


def _devices() -> dict[str, Any]:
    """Platform, number and kinds of JAX's devices, read in a child: the process that initialises them holds them."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", DEVICES], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return {"error": f"JAX found no devices within {TIMEOUT_S:g} s"}
    except subprocess.CalledProcessError as error:
        return {"error": (error.stderr.strip().splitlines() or ["JAX failed"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found

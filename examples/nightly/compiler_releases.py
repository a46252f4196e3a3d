#!/usr/bin/env python3
"""A history of compiler nights from releases of libtpu: each in a folder of its own, a night on the day of its release.

    python examples/nightly/compiler_releases.py 0.0.45 0.0.49 0.0.52
    python examples/nightly/compiler_releases.py 0.0.45@2026-08-01 results_dir=results/mine out=reports/mine

One jax compiles with every release, so that the compiler alone differs: PJRT's C API lets it load a libtpu older
or newer than its own. `VERSION@DATE` asks no package index for the date; a release in `wheels` is not installed again.
"""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

DEFAULTS = {
    "wheels": "wheels",
    "results_dir": "results/compiler",
    "out": "reports",
    "sweep": "compiler-nightly",
    "run": "",
}
SOME_FAILED = 3
RELEASE = re.compile(r"(?P<version>\d[\w.]*)(@(?P<day>\d{4}-\d{2}-\d{2}))?")


def main(words: Sequence[str]) -> int:
    """Make the nights, then the report. Returns 0, or 2 for words that say nothing."""
    settings = dict(DEFAULTS)
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in settings:
            settings[name] = value
        elif match := RELEASE.fullmatch(word):
            found.append((match["version"], match["day"]))
        else:
            print(f"{word}: is neither VERSION[@DATE] nor one of {', '.join(DEFAULTS)}=...", file=sys.stderr)
            return 2
    if not found:
        print(__doc__, file=sys.stderr)
        return 2
    dates = {version: day or release_date(version) for version, day in found}
    if len(set(dates.values())) < len(dates):
        print(f"two releases on one date are one night: give other dates as VERSION@DATE ({dates})", file=sys.stderr)
        return 2
    for version, day in sorted(dates.items(), key=lambda each: each[1]):
        night(version, day, settings)
    where = [f"results_dir={settings['results_dir']}", f"out={settings['out']}"]
    return subprocess.run(["shardbench", "report", "compiler", *where], check=False).returncode


def night(version: str, day: str, settings: dict[str, str]) -> None:
    """Compile the sweep with one release. Points that it does not compile are rows too."""
    folder = Path(settings["wheels"], version).absolute()
    if not (folder / "libtpu").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*pip, f"libtpu=={version}"], check=True)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    print(f"libtpu {version}, night of {day}", flush=True)
    store = f"results_dir={settings['results_dir']}/nightly/{day}"
    words = ["run", f"+sweep={settings['sweep']}", store, "print=none", *settings["run"].split()]
    code = subprocess.run(["shardbench", *words], env={**os.environ, "PYTHONPATH": path}, check=False).returncode
    if code not in (0, SOME_FAILED):
        sys.exit(code)


def release_date(version: str) -> str:
    """The day on which the package index got the first file of a release (PEP 700's upload-time)."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    asked = urllib.request.Request(f"{index}/libtpu/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        files = json.load(answer)["files"]
    days = [each["upload-time"][:10] for each in files if each["filename"].split("-")[1] == version]
    if not days:
        sys.exit(f"libtpu {version}: {index} has no such release; pip index versions libtpu lists them")
    return min(days)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

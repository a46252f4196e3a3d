"""The collectives of programs for more devices than a test has: counted in a process of its own."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def counted_on_64_devices(cases: Sequence[Sequence[Any]]) -> Iterator[Counter[tuple[Any, ...]]]:
    """Of each case, how often which collective of which size occurs in the compiled text."""
    here = Path(__file__).parent
    environment = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=64",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, str(here / "hlo_collectives.py"), json.dumps(cases)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    for line in done.stdout.splitlines():
        yield Counter({tuple(each[:3]): each[3] for each in json.loads(line)})

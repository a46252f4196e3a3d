"""The suite of ``make perf`` on a model that takes no time."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.thorough
def test_all_contestants_run_and_their_ratio_is_told():
    words = ["perf", "-q", "--size=tiny", "--seconds=0", "--threads=1", "--without-compile"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "-k", "float32"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout
    for name in ("jax ", "jax gspmd", "torch eager", "torch.compile  left out: not asked for"):
        assert name in done.stdout
    assert done.stdout.count("jax / torch eager: ") == 4  # prefill and decode, without experts and with

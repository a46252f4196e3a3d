"""What the repository holds: sources, and no file that a build or a download left behind."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_BEHIND = {".whl", ".egg", ".pyc", ".so", ".tar", ".zip"}


def test_nothing_built_or_downloaded_is_tracked():
    try:
        done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no checkout")
    assert [name for name in done.stdout.splitlines() if Path(name).suffix in LEFT_BEHIND] == []

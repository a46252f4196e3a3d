"""Several sweeps at once on one store, and one of them killed, asleep or preempted: every point is answered once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import shared_sweeps

HERE = Path(__file__).parent
POINTS = list(range(1, shared_sweeps.POINTS + 1))
pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found on Linux")


@pytest.mark.slow(seconds=20)
def test_no_row_is_lost_or_doubled_and_nothing_is_left(shardbench, tmp_path):
    """One round a kind here; ``python shared_sweeps.py FOLDER SEED KIND...`` plays as many as one likes."""
    words = [sys.executable, str(HERE / "shared_sweeps.py"), str(tmp_path), "7", *shared_sweeps.KINDS]
    done = subprocess.run(words, env=shardbench.env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["kind"] for each in rounds] == list(shared_sweeps.KINDS)
    for each in rounds:
        assert each["answered"] == POINTS, each
        assert (each["orphans"], each["left"]) == ([], []), each
        # A point whose worker was killed has a row that says so, which the next command asks again.
        assert each["failed"] <= (2 if each["kind"] == "worker" else 0), each
        assert each["last"] == 0, each
    undisturbed = rounds[0]
    assert undisturbed["codes"] == [0, 0]
    assert undisturbed["started"] == len(POINTS)
    codes = {each["kind"]: set(each["codes"]) for each in rounds}
    assert codes["preempted"] <= {0, 143}
    assert codes["interrupted"] <= {0, 130}
    assert codes["command"] <= {0, -9}

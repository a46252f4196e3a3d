"""The fixtures that a user's tests get."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
from builders import hlo_texts
from test_reading_programs import estimated

def test_no_slower(before):
    now = estimated(hlo_texts.gathers(*{operands}), 4, {{"model": 4}})
    assert now.step_time_s < 1.02 * before(now)

def test_the_function(estimate):
    from bench.estimate import estimate as own
    assert estimate is own
"""


def run(folder, *words):
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (ROOT, here.parent, here)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "bench.testing", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_program_is_kept_to_the_time_that_it_took_before(tmp_path):
    def write(*operands):
        (tmp_path / "test_step.py").write_text(TESTS.format(operands=operands))

    write("x")
    assert run(tmp_path).returncode == 0
    (name, first), *rest = json.loads((tmp_path / ".shardbench-times.json").read_text()).items()
    assert (name, rest) == ("step on tpu-v5e 2x2x1 (model=4)", [])
    write("x", "moved")
    slower = run(tmp_path)
    assert "1 failed, 1 passed" in slower.stdout
    assert run(tmp_path, "--shardbench-update").returncode == 0
    assert json.loads((tmp_path / ".shardbench-times.json").read_text())[name] > first
    assert run(tmp_path).returncode == 0

"""Stand-ins for programs that need a GPU: small scripts that answer, fail, hang or print garbage on demand."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import PATIENCE_S

from bench.run.load_engine import make_engine
from bench.sweep.catalog import load_group

STAND_INS = Path(__file__).parent / "stand_ins"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Make a stand-in executable; returns its path. This machine then has eight A100s for nvidia-smi's stand-in."""
    monkeypatch.setenv("STAND_IN_GPUS", ",".join(["NVIDIA A100-SXM4-80GB"] * 8))

    def make(name):
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\n" + (STAND_INS / f"{name}.py").read_text(encoding="utf-8"), "utf-8")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def faster(program):
    """The adapter with stand-ins for all three programs; keywords change its config."""

    def make(**changes):
        config = {
            **load_group("engine", "fastertransformer"),
            "binary": program("gpt_example"),
            "mpirun": program("mpirun"),
            "nvidia_smi": program("nvidia_smi"),
            "run_timeout_s": PATIENCE_S,
        }
        return make_engine({**config, **changes})

    return make


@pytest.fixture
def time_is_up_once(monkeypatch):
    """``time_is_up_once(seen)``: the clock stands until ``seen()``, then leaps. No slow start is taken for a hang."""

    def given(seen):
        clock = SimpleNamespace(monotonic=lambda: 1e9 if seen() else 0.0, sleep=time.sleep)
        monkeypatch.setattr("engines.host.program.time", clock)

    return given


@pytest.fixture(scope="module")
def server():
    """The address of a server that answers 4 requests at a time, each of 8 tokens in 0.05 + 7 · 0.01 s."""
    words = [sys.executable, str(STAND_INS / "openai_server.py"), "0", "4", "0.05", "0.01"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as started:
        yield f"http://127.0.0.1:{started.stdout.readline().strip()}"
        started.kill()


@pytest.fixture
def serving(program, server):
    """The engine with vLLM's client stood in for; keywords change its config."""

    def make(**changes):
        config = {**load_group("engine", "serving"), "program": program("vllm_serve"), "url": server}
        return make_engine({**config, "arrivals": "constant", "first_rate_per_s": 10.0, **changes})

    return make

"""``shardbench run engine=serving`` as typed: a row by the way of all points, which answers the next time."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.rows.store import Store

STAND_INS = Path(__file__).parents[1] / "adapters" / "stand_ins"
POINT = [
    "model=tiny",
    "hw=cpu",
    "num_chips=1",
    "phase=serve",
    "batch_size=0",
    "input_len=32",
    "output_len=8",
    "weight_dtype=float32",
]


@pytest.fixture
def client(tmp_path):
    """The path of what stands in for vLLM's client."""
    path = tmp_path / "vllm"
    path.write_text(f"#!{sys.executable}\n" + (STAND_INS / "vllm_serve.py").read_text(encoding="utf-8"), "utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def url():
    """A server that answers."""
    words = [sys.executable, str(STAND_INS / "openai_server.py"), "0", "4", "0.05", "0.01"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as started:
        yield f"http://127.0.0.1:{started.stdout.readline().strip()}"
        started.kill()


def test_rates_are_a_sweep_whose_rows_answer_the_next_time(client, url, tmp_path, capsys):
    engine = ["engine=serving", f"engine.program={client}", f"engine.url={url}", "engine.arrivals=constant"]
    words = ["run", *POINT, *engine, "request_rate_per_s=[5,50]", "num_requests=100", f"results_dir={tmp_path / 'r'}"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "first token (ms)" in shown
    assert "latency" not in shown.splitlines()[2]
    slow, fast = sorted(Store(tmp_path / "r").load(), key=lambda row: row.request_rate_per_s)
    assert (slow.valid, fast.valid) == (True, True)
    # At 50 a second, the last of 100 requests waits until 24 batches of 4 before it are done.
    assert slow.load["ttft_s"]["p99"] == pytest.approx(0.05)
    assert fast.load["requests_per_s"] == pytest.approx(100 / (25 * 0.12 + 3 / 50), rel=0.03)
    assert main(words) == 0
    assert "2 points, 2 of them already stored" in capsys.readouterr().err
    assert len(Store(tmp_path / "r").load()) == 2

"""A server that the engine starts itself: its command, its start, and its end with all its processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from processes import wait_until_gone
from served_point import point, row_of


def test_a_server_ends_with_the_process_that_started_it(tmp_path):
    """Whatever ends that: here it kills itself, and closes nothing."""
    noted = tmp_path / "pid"
    server = f"import os,time; open({str(noted)!r},'w').write(str(os.getpid())); time.sleep(99)"
    code = (
        "import os,signal,sys,time; from pathlib import Path; from engines.host.background import BackgroundProgram\n"
        f"started = BackgroundProgram([sys.executable, '-c', {server!r}], Path({str(tmp_path)!r}))\n"
        f"while not (os.path.exists({str(noted)!r}) and open({str(noted)!r}).read()): time.sleep(0.02)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    wait_until_gone(int(noted.read_text(encoding="utf-8")))


def words_of_server(program, *more):
    return [sys.executable, program, "{port}", "4", "0.05", "0.01", *more]


def test_a_server_is_started_and_ended_with_all_its_processes(serving, program, monkeypatch, tmp_path):
    noted = tmp_path / "pid"
    code = f"import os,sys; open({str(noted)!r},'w').write(str(os.getpid())); os.execv(sys.executable, sys.argv[1:])"
    server = [sys.executable, "-c", code, *words_of_server(program("openai_server"))]
    engine = serving(url=None, server=server)
    row = row_of(engine, point())
    assert row.valid, row.error
    assert row.details["server_model"] == "stand-in"
    assert "openai_server" in row.details["server_command"]
    assert row.program_id == engine.program_id(point())
    wait_until_gone(int(noted.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        (
            {"server": [sys.executable, "-c", "raise SystemExit('no such checkpoint')", "{port}"]},
            "failed",
            "ended before it answered; its output ends with: no such checkpoint",
        ),
        (
            {"server": [sys.executable, "-c", "import time; time.sleep(99)", "{port}"], "start_timeout_s": 0.2},
            "timeout",
            "engine.start_timeout_s=0.2: the server did not answer in time (Connection refused); raise it",
        ),
        ({"server": ["vllm", "serve"]}, "unsupported", "names no {port}"),
        ({}, "unsupported", "engine.url=null: no server is named, and no engine.model_path"),
        ({"server": ["/nowhere", "{port}"]}, "unsupported", "/nowhere is not installed"),
    ],
)
def test_a_server_that_does_not_start_says_why(serving, changes, status, said):
    row = row_of(serving(url=None, **changes), point())
    assert row.status == status
    assert said in row.error


def test_vllm_serve_gets_the_degrees_and_no_cache_of_prompts(serving):
    engine = serving(url=None, model_path="/weights")
    words = engine._server_words(point(hw="h100-80gb", num_chips=4, tensor_parallel=2, weight_dtype="bfloat16"))
    assert words[:3] == ["vllm", "serve", "/weights"]
    options = dict(zip(words[3:-1:2], words[4::2], strict=False))
    assert (options["--tensor-parallel-size"], options["--pipeline-parallel-size"]) == ("2", "2")
    assert options["--max-model-len"] == "40"
    assert "--no-enable-prefix-caching" in words

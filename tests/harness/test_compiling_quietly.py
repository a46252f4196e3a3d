"""A compiler that a command asks says nothing of its own on stderr."""

import csv
import json

import pytest
from test_progress import run_in_terminal

from engines.published.table import columns

pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")
CASE = {
    "source": "mine", "system": "here", "model": "palm-8b", "hw": "tpu-v4", "num_chips": "8", "phase": "decode",
    "batch_size": "8", "input_len": "32", "output_len": "2", "weight_dtype": "bfloat16", "ffn_layout": "ws_2d",
    "attn_sharding": "batch", "latency_s": "0.01", "status": "ok",
}  # fmt: skip


def data_file(folder, *cases):
    path = folder / "times.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns(), restval="")
        writer.writeheader()
        writer.writerows(cases)
    return path


@pytest.mark.slow
def test_validate_asks_the_compiler_in_children_and_in_silence(shardbench, tmp_path):
    # 62B parameters in bfloat16 do not fit on one chip of 32 GiB.
    refused = {**CASE, "model": "palm-62b", "num_chips": "1", "ffn_layout": "", "attn_sharding": ""}
    path = data_file(tmp_path, CASE, {**refused, "latency_s": "", "status": "oom"})
    done = shardbench("validate", f"data={path}", "engine=compiled", "print=json")
    assert done.stderr == ""
    found = json.loads(done.stdout)
    first, second = found["errors"]
    assert first["predicted_status"] == "ok"
    assert first["error"] == pytest.approx(first["predicted_s"] / 0.01 - 1)
    assert (second["predicted_status"], found["oom_hit"]) == ("oom", 1)


@pytest.mark.slow
def test_a_terminal_sees_how_many_cases_are_left(shardbench, tmp_path):
    path = data_file(tmp_path, CASE)
    stdout, shown = run_in_terminal(shardbench, ["validate", f"data={path}", "engine=compiled", "print=json"])
    assert json.loads(stdout)["compared"] == 1
    assert "/1" in shown
    assert "0 failed" in shown


def test_plan_is_silent(shardbench):
    done = shardbench("plan", "model=palm-8b", "num_chips=8", "phase=decode", "batch_size=8")
    assert done.stderr == ""
    assert "best" in done.stdout

"""Files of asv: what shardbench writes it reads again, and of others' what is no point is named."""

import json
from pathlib import Path

import pytest
from builders.files_of_others import BY_NAME
from builders.rows import a_row

from bench.cli.main import main
from bench.compare.nights.asv import COLUMNS, write_asv
from bench.compare.nights.read import Night
from bench.rows.store import Store
from engines.core.row import POINT_FIELDS

SHA = "0123456789abcdef0123456789abcdef01234567"
LLAMA = {"model": "llama-3-8b", "hw": "tpu-v5e", "num_chips": 4, "mesh_shape": [2, 2], "weight_dtype": "bfloat16"}
HERE = {**LLAMA, "git_sha": SHA, "host": "lab 1/../x", "versions": {"jax": "0.10.2", "python": "3.11"}, "valid": True}


def measured(time, **changes):
    samples = [time * (1 + 0.01 * each) for each in (-1, 0, 1)]
    return a_row(**(HERE | {"latency_s": time, "samples_s": samples, "point_id": str(time)} | changes))


def test_what_is_exported_is_imported_again_with_its_point_and_samples(tmp_path, capsys):
    rows = [measured(0.5), measured(2.0, batch_size=64, ffn_layout="ws_2d", attn_sharding="batch")]
    rows.append(measured(1.0, batch_size=2, ffn_layout="ws_1d", chosen=["ffn_layout"]))
    rows.append(measured(0.7, phase="prefill", output_len=0))
    Store(tmp_path / "store").append([*rows, a_row(git_sha=None, point_id="nowhere", latency_s=9.0)])
    words = ["results", "export", "format=asv", "history=true", f"results_dir={tmp_path / 'store'}"]
    assert main([*words, f"out={tmp_path / 'asv'}"]) == 0
    assert "4 points with a time" in (out := capsys.readouterr().out)
    assert "left out 1 row of no known commit" in out
    (file,) = (tmp_path / "asv" / "results").glob("*/01234567-*.json")
    assert file.parent.name == "lab_1_.._x"
    assert main(["import", f"data={file}", f"results_dir={tmp_path / 'again'}"]) == 0
    again = {row.latency_s: row for row in Store(tmp_path / "again").load()}
    assert len(again) == 4
    for row in rows:
        read = again[row.latency_s]
        assert (read.phase, read.samples_s, read.system) == (row.phase, row.samples_s, "measured.jax")
        for name in POINT_FIELDS:
            if name not in ("engine", "runtime", "partitioner", "act_dtype", "kv_dtype", *row.chosen):
                assert (getattr(read, name) or "auto") == (getattr(row, name) or "auto"), name


def test_the_files_have_what_asv_writes_and_the_last_night_of_a_commit_counts(tmp_path):
    nights = [Night(day=f"2026-01-0{n}", store=Path(), rows=[measured(float(n))] * 3) for n in (1, 2)]
    failed = measured(3.0, status="oom", latency_s=None, samples_s=None, valid=False, batch_size=99)
    nights.append(Night(day="2026-01-03", store=Path(), rows=[failed]))
    assert write_asv(nights, tmp_path) == (1, 0)
    (file,) = (tmp_path / "results").glob("*/01234567-*.json")
    ours, theirs = json.loads(file.read_text()), json.loads(BY_NAME["asv.json"].path.read_text())
    assert ours.keys() == theirs.keys()
    assert [*COLUMNS, "profile"] == theirs["result_columns"]
    columns = dict(zip(ours["result_columns"], ours["results"]["measured.jax.decode"], strict=True))
    assert sorted(columns["result"], key=str) == [2.0, None]
    assert columns["samples"][columns["result"].index(2.0)] == [2.0] * 3  # one a process
    listed = json.loads((tmp_path / "results" / "benchmarks.json").read_text())["measured.jax.decode"]
    assert listed["params"] == columns["params"]
    assert json.loads((file.parent / "machine.json").read_text())["machine"] == file.parent.name
    assert json.loads((tmp_path / "asv.conf.json").read_text())["results_dir"] == "results"


def test_of_others_benchmarks_what_is_no_point_is_named(tmp_path, capsys):
    content = json.loads(BY_NAME["asv.json"].path.read_text())
    row = content["results"]["measured.jax.decode"]
    content["results"]["suite.TimeKeys.time_keys"] = [[0.1], [["10"], ["'a'"]][:1], "1"]
    row[0][1] = float("nan")
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content))
    assert main(["import", f"data={path}", f"results_dir={tmp_path / 'store'}"]) == 3
    out = capsys.readouterr().out
    assert "benchmark=suite.TimeKeys.time_keys names no phase of a point" in out
    assert "is no time" in out
    assert len(Store(tmp_path / "store").load()) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": [0.6, 0.7]}, "result=0.5 is beyond all of its samples"),
        ({"point": "batch_size=x"}, "point.batch_size=x must"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, capsys, changes, words):
    content = json.loads(BY_NAME["asv.json"].path.read_text())
    row = content["results"]["measured.jax.decode"]
    if "samples" in changes:
        row[-1][0] = changes["samples"]
    else:
        row[1][0][0] = row[1][0][0].replace("batch_size=8", changes["point"])
    (tmp_path / "file.json").write_text(json.dumps(content))
    assert main(["import", f"data={tmp_path / 'file.json'}", f"results_dir={tmp_path / 'store'}"]) == 2
    assert words in capsys.readouterr().err

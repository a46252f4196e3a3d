"""The command line as a user meets it."""

import json
import os

import pytest

DECODE = (
    "run",
    "model=palm-540b",
    "hw=tpu-v4",
    "num_chips=64",
    "phase=decode",
    "engine=analytic",
    "wandb.mode=disabled",
)


def test_the_first_example(shardbench):
    asked = ("batch_size=64", "input_len=1984", "output_len=64", "weight_dtype=int8", "print=json")
    (row,) = shardbench.rows(shardbench(*DECODE, *asked))
    assert row["source"] == "predicted"
    assert row["status"] == "ok"
    assert row["valid"]
    assert row["ffn_layout"] in ("ws_1d", "ws_2d")
    assert row["latency_s"] == pytest.approx(64 * row["step_time_s"])
    assert 0 < row["mfu"] < 1
    assert [stored["point_id"] for stored in shardbench.stored()] == [row["point_id"]]


@pytest.mark.slow
def test_a_list_is_a_grid_in_one_job(shardbench):
    done = shardbench(*DECODE, "batch_size=[64,128]", "weight_dtype=[int8,bfloat16]", "print=json")
    asked = [(row["batch_size"], row["weight_dtype"]) for row in shardbench.rows(done)]
    assert sorted(asked) == [(64, "bfloat16"), (64, "int8"), (128, "bfloat16"), (128, "int8")]
    assert len(list(shardbench.results.glob("rows/*.jsonl"))) == 1


@pytest.mark.slow
def test_a_list_of_models_chips_and_engines(shardbench):
    done = shardbench(
        "run", "model=[palm-8b,palm-62b]", "hw=[tpu-v4,tpu-v5p]", "engine=[analytic,published]",
        "wandb.mode=disabled", "print=json",
    )  # fmt: skip
    asked = {(row["model"], row["hw"], row["engine"]) for row in shardbench.rows(done)}
    assert len(asked) == 8
    sources = {row["engine"]: row["source"] for row in shardbench.rows(done)}
    assert sources == {"analytic": "predicted", "published": "published"}


@pytest.mark.slow
def test_a_multirun_is_a_job_a_point(shardbench):
    done = shardbench(*DECODE, "-m", "model=palm-8b,palm-62b", "batch_size=64,128", "print=json")
    assert len(shardbench.rows(done)) == 4
    assert len(list(shardbench.results.glob("rows/*.jsonl"))) == 4
    assert sorted(path.name for path in shardbench.folder.iterdir()) == ["results"]


@pytest.mark.slow
def test_a_multirun_of_an_engine_that_runs_gives_each_job_a_process(shardbench):
    shardbench(*shardbench.scripted("-m", "batch_size=1,2", "print=none"))
    assert len({pid for pid, _ in shardbench.executed()}) == 2
    shardbench(*shardbench.scripted("batch_size=[3,4]", "print=none"))
    assert len({pid for pid, _ in shardbench.executed()}) == 3


@pytest.mark.slow
def test_a_recipe_and_what_overrides_it(shardbench):
    done = shardbench("run", "+sweep=paper-table2", "engine=[published,analytic]", "wandb.mode=disabled", "print=json")
    rows = shardbench.rows(done)
    assert [row["engine"] for row in rows] == ["published"] * 6 + ["analytic"] * 6
    assert {row["sweep"] for row in rows} == {"paper-table2"}
    assert all(row["status"] == "ok" for row in rows)
    done = shardbench("run", "sweep=paper-table2", "batch_size=128", "wandb.mode=disabled", "print=json")
    assert {row["batch_size"] for row in shardbench.rows(done)} == {128}


@pytest.mark.slow
def test_the_same_command_again_answers_from_the_store(shardbench):
    first = shardbench.rows(shardbench(*DECODE, "print=json"))
    second = shardbench.rows(shardbench(*DECODE, "print=json"))
    assert first == second
    assert len(shardbench.stored()) == 1


@pytest.mark.slow
def test_a_changed_model_is_not_taken_for_the_original(shardbench):
    whole, part = (
        shardbench.rows(shardbench(*DECODE, *words, "print=json"))[0] for words in ((), ("model.num_layers=8",))
    )
    assert part["model"] == "palm-540b+num_layers=8"
    assert part["latency_s"] < whole["latency_s"] / 5


@pytest.mark.parametrize(
    ("words", "key", "remedy"),
    [
        (("model=palm-541b",), "model=palm-541b", "palm-540b"),
        (("hw=tpu-v3",), "hw=tpu-v3", "tpu-v4"),
        (("engine=jaxx",), "engine=jaxx", "jax"),
        (("num_chips=7",), "num_chips=7", "4 and 8"),
        (("batch_size=3", "attn_sharding=batch"), "batch_size=3", "multiple of 4"),
        (("input_len=-1",), "input_len=-1", "0 or more"),
        (("output_len=-64",), "output_len=-64", "1 or more"),
        (("num_chips=1", "ffn_layout=ws_2d"), "ffn_layout=ws_2d", "ffn_layout=auto"),
        (("batchsize=3",), "batchsize=3", "batch_size="),
        (("batch_size=two",), "batch_size=two", "1 or more"),
        (("batch_size=[]",), "batch_size=[]", "at least one"),
        (("+sweep=papertable2",), "sweep=papertable2", "paper-table2"),
        (("batch_size=[1,2",), "batch_size=[1,2", "key=value"),
        (("print=yaml",), "print=yaml", "json"),
        (("timing.samples=3",), "timing.samples=3", "did you mean timing.min_samples="),
        (("model.num_layers=x",), "model.num_layers=x", "tiny.yaml"),
        (("results_dir=/dev/null",), "results_dir=/dev/null", "use a folder"),
        (("timing.min_samples=0",), "timing.min_samples=0", ""),
        (("model.num_layers=-1",), "model.num_layers=-1", "must be > 0"),
        (("engine=null",), "engine=null", "analytic"),
        (("timing=",), "timing=", "default"),
        (("sweep_name=",), "sweep_name=", "null"),
        (("engine=compiled", "engine.timeout_s=soon"), "engine.timeout_s=soon", "null for no limit"),
        (("retry=often",), "retry=often", "failed"),
        (("resume=maybe",), "resume=maybe", "resume=true"),
        (("--config-dir", "nowhere"), "--config-dir=", "use a folder"),
        (("-m", "model=palm-8b,palm-9b"), "model=palm-9b", "palm-8b"),
        (("-m", "batch_size=4,-4"), "batch_size=-4", "1 or more"),
    ],
)
def test_a_wrong_question_is_one_line_and_leaves_the_store(shardbench, monkeypatch, capfd, words, key, remedy):
    assert shardbench.here(monkeypatch, *DECODE, *words) == 2
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert key in line
    assert remedy in line
    assert out == ""
    assert list(shardbench.folder.iterdir()) == []


@pytest.mark.parametrize(("content", "problem"), [("name: [x", "bad.yaml:"), ("just text", "must be a mapping")])
def test_an_invalid_config_file_is_one_line(shardbench, monkeypatch, capfd, tmp_path, content, problem):
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "bad.yaml").write_text(content, encoding="utf-8")
    assert shardbench.here(monkeypatch, "run", "--config-dir", str(tmp_path / "own"), "model=bad") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert problem in line


@pytest.mark.slow
def test_a_grid_keeps_its_good_points_beside_the_bad(shardbench):
    done = shardbench(*DECODE, "batch_size=[3,64]", "attn_sharding=batch", "print=json")
    rows = {row["batch_size"]: row for row in shardbench.rows(done)}
    assert rows[3]["status"] == "unsupported"
    assert "batch_size=3" in rows[3]["error"]
    assert rows[64]["status"] == "ok"


@pytest.mark.slow
def test_a_store_cut_in_half_is_named_and_left(shardbench):
    shardbench(*DECODE, "print=none")
    (part,) = shardbench.results.glob("rows/*.jsonl")
    half = part.read_bytes()[: part.stat().st_size // 2]
    part.write_bytes(half)
    done = shardbench(*DECODE, "batch_size=128", code=2)
    (line,) = done.stderr.splitlines()
    assert part.name in line
    assert "results check" in line
    assert part.read_bytes() == half
    assert list(shardbench.results.glob("rows/*")) == [part]


@pytest.mark.slow
def test_a_traceback_only_for_those_who_ask(shardbench):
    done = shardbench(*DECODE, "num_chips=7", env={"SHARDBENCH_TRACEBACK": "1"}, code=2)
    assert "Traceback" in done.stderr


@pytest.mark.slow
def test_json_is_all_that_stands_on_stdout(shardbench):
    done = shardbench(*DECODE, "batch_size=[64,128]", "print=json")
    assert [json.loads(line)["schema_version"] for line in done.stdout.splitlines()] == [2, 2]


@pytest.mark.slow
def test_help_teaches(shardbench):
    for words in (("--help",), ()):
        assert "shardbench run" in shardbench(*words).stdout
    assert "batch_size: 64" in shardbench("run", "--help").stdout
    assert "phase: decode" in shardbench("run", "--cfg", "job").stdout
    assert not shardbench.results.exists()


def test_an_unknown_command_names_the_nearest(shardbench):
    assert "did you mean run" in shardbench("runn", code=2).stderr


@pytest.mark.slow
def test_the_gpu_here_is_a_chip(shardbench, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA H100 80GB HBM3\n", encoding="utf-8")
    program.chmod(0o755)
    here = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ("run", "+sweep=gpu", "hw=here", "engine=analytic", "wandb.mode=disabled", "print=json")
    rows = shardbench.rows(shardbench(*words, env=here))
    assert len(rows) == 20
    assert {(row["hw"], row["num_chips"], row["sweep"]) for row in rows} == {("h100-80gb", 1, "gpu")}
    assert {row["status"] for row in rows} == {"ok"}
    assert (shardbench.results / "gpu" / "rows").is_dir()


@pytest.mark.slow
def test_no_gpu_is_here(shardbench, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    program.chmod(0o755)
    done = shardbench("run", "hw=here", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, code=2)
    assert "hw=here: nvidia-smi lists no GPU" in done.stderr

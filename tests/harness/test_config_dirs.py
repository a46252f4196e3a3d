"""Config folders of the user's own: one meaning in every command, before or after its words, by flag or variable."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cli.main import main
from bench.sweep import catalog
from bench.sweep.config_dirs import VARIABLE, in_use, user_dirs, without_flags
from engines.core.errors import InvalidRequest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TINY = (ROOT / "conf" / "model" / "tiny.yaml").read_text(encoding="utf-8")
PALM = (ROOT / "conf" / "model" / "palm-540b.yaml").read_text(encoding="utf-8")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a model, a chip and a sweep of the user's, and a file named as one of our models."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my configs=1,#'ü"
    for group in ("model", "hw", "sweep"):
        (folder / group).mkdir(parents=True)
    (folder / "model" / "mine.yaml").write_text(TINY.replace("name: tiny", "name: mine"), encoding="utf-8")
    gpt = (ROOT / "conf" / "model" / "gpt-20b.yaml").read_text(encoding="utf-8")
    (folder / "model" / "mine-20b.yaml").write_text(gpt.replace("name: gpt-20b", "name: mine-20b"), encoding="utf-8")
    (folder / "model" / "palm-540b.yaml").write_text(PALM.replace("num_layers: 118", "num_layers: 59"))
    chip = (ROOT / "conf" / "hw" / "tpu-v4.yaml").read_text(encoding="utf-8").replace("name: tpu-v4", "name: mychip", 1)
    (folder / "hw" / "mychip.yaml").write_text(chip, encoding="utf-8")
    (folder / "sweep" / "nights.yaml").write_text(
        "# @package _global_\npoints:\n  - {model: [mine, tiny], hw: mychip, num_chips: 8}\n", encoding="utf-8"
    )
    return folder


ROWS = (
    "source,system,model,hw,num_chips,tensor_parallel,pipeline_parallel,phase,batch_size,input_len,output_len,"
    "weight_dtype,ffn_layout,attn_sharding,latency_s,mfu,status\n"
    "x,y,mine,mychip,8,,,decode,1,100,10,bfloat16,,,1.5,,ok\n"
)
IMPORTED = (
    "import data=latency.json model=mine hw=mychip num_chips=1 batch_size=8 input_len=32 output_len=128 "
    "weight_dtype=bfloat16"
)
COMMANDS = {
    "run": "run model=[mine,tiny] hw=mychip num_chips=8 wandb.mode=disabled print=none",
    "a recipe": "run +sweep=nights wandb.mode=disabled print=none",
    "plan": "plan model=mine hw=mychip num_chips=8",
    "pareto": "pareto model=mine hw=mychip num_chips=8 batch_size=8",
    "validate": "validate data=rows.csv",
    "calibrate": "calibrate hw=a100-80gb data=timed.csv",
    "import": IMPORTED,
    "nightly": "nightly sweep=nights run=[wandb.mode=disabled]",
}


WAYS = ["flag before", "flag after", "short flag", "equals", "variable"]
"""All commands take them from one place, so each command takes two of them in turn, and ``run`` all."""


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize(
    ("words", "by"),
    [
        pytest.param(words, by, id=f"{name}-{by}")
        for place, (name, words) in enumerate(COMMANDS.items())
        for by in (WAYS if name == "run" else (WAYS[place % 5], WAYS[(place + 2) % 5]))
    ],
)
def test_every_command_takes_a_folder(own, monkeypatch, capfd, words, by):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    Path("rows.csv").write_text(ROWS, encoding="utf-8")
    timed = ROOT / "engines" / "published" / "data" / "fastertransformer_gpt-20b.csv"
    Path("timed.csv").write_text(timed.read_text(encoding="utf-8").replace(",gpt-20b,", ",mine-20b,"), encoding="utf-8")
    Path("latency.json").write_text(json.dumps({"avg_latency": 0.5, "latencies": [0.5, 0.5], "percentiles": {}}))
    words = words.split()
    assert main(words) == 2  # the control: without the folder, nothing knows the model
    asked = {
        "flag before": ["--config-dir", str(own), *words],
        "flag after": [*words, "--config-dir", str(own)],
        "short flag": [*words, "-cd", str(own)],
        "equals": [*words, f"--config-dir={own.name}"],
        "variable": words,
    }
    if by == "variable":
        monkeypatch.setenv(VARIABLE, own.name)
    before = os.environ.get(VARIABLE)
    assert main(asked[by]) == 0, capfd.readouterr().err
    assert os.environ.get(VARIABLE) == before


def test_a_file_named_as_ours_counts_and_its_rows_say_what_was_changed(own, monkeypatch, capfd):
    monkeypatch.setenv(VARIABLE, str(own))
    assert catalog.load_model("palm-540b").name == "palm-540b+num_layers=59"
    assert main(["run", "wandb.mode=disabled", "print=json"]) == 0
    (row,) = map(json.loads, capfd.readouterr().out.splitlines())
    assert row["model"] == "palm-540b+num_layers=59"
    assert main(["plan", "model=palm-540b", "num_chips=64"]) == 0
    assert "palm-540b+num_layers=59 on tpu-v4" in capfd.readouterr().out
    # And a row's name means the same with the folder as without it.
    half = catalog.model_from(catalog.load_customised("model", row["model"]))
    whole = catalog.load_customised("model", "palm-540b")
    monkeypatch.delenv(VARIABLE)
    assert half == catalog.model_from(catalog.load_customised("model", row["model"]))
    assert whole["num_layers"] == 118
    assert catalog.load_model("palm-540b").num_layers == 118


def test_a_change_to_a_model_of_ones_own_is_named_too(own, monkeypatch, capfd):
    words = ["run", "model=mine", "model.num_layers=1", "hw=mychip", "num_chips=8", "wandb.mode=disabled"]
    assert main([*words, "print=json", "--config-dir", str(own)]) == 0
    (row,) = map(json.loads, capfd.readouterr().out.splitlines())
    assert row["model"] == "mine+num_layers=1"


def test_the_first_of_several_folders_counts(own, tmp_path, monkeypatch):
    other = tmp_path / "other"
    (other / "model").mkdir(parents=True)
    (other / "model" / "mine.yaml").write_text(
        TINY.replace("name: tiny", "name: mine").replace("num_layers: 4", "num_layers: 7"), encoding="utf-8"
    )
    monkeypatch.setenv(VARIABLE, str(own))
    with in_use([str(other)]):
        assert user_dirs() == (other, own)
        assert catalog.load_model("mine").num_layers == 7
        assert "mychip" in catalog.names("hw")
        assert catalog.load_model("tiny").num_layers == 4
    assert catalog.load_model("mine").num_layers == 4


def test_child_processes_find_the_folders_wherever_they_stand(own):
    code = "from bench.sweep.catalog import load_model; print(load_model('mine').name)"
    with in_use([own.name]):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, check=True
        )
    assert done.stdout == "mine\n"


@pytest.mark.parametrize("command", ["run", "plan", "results", "env"])
@pytest.mark.parametrize("by", ["--config-dir", VARIABLE])
@pytest.mark.parametrize(
    ("folder", "problem"),
    [("nowhere", "does not exist"), ("file", "is not a folder"), ("empty", "has no config group")],
)
def test_a_folder_without_configs_is_one_sentence(tmp_path, monkeypatch, capfd, command, by, folder, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "empty" / "notes").mkdir(parents=True)
    words = [command]
    if by == VARIABLE:
        monkeypatch.setenv(VARIABLE, folder)
    else:
        words += [by, folder]
    assert main(words) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"{by}={folder}: {problem}" in line
    assert "model" in line


@pytest.mark.parametrize("words", [["plan", "--config-dir"], ["plan", "-cd="]])
def test_a_flag_without_a_folder(capfd, words):
    assert main(words) == 2
    assert "has no folder" in capfd.readouterr().err


PLAIN = st.text(min_size=1).filter(lambda word: word.partition("=")[0] not in ("--config-dir", "-cd"))


@given(words=st.lists(PLAIN), folders=st.lists(st.text(min_size=1)), data=st.data())
def test_flags_are_taken_out_wherever_they_stand_and_nothing_else(words, folders, data):
    mixed = [[word] for word in words]
    for at, folder in enumerate(folders):
        form = data.draw(st.sampled_from((["--config-dir", folder], [f"--config-dir={folder}"], ["-cd", folder])))
        mixed.insert(data.draw(st.integers(at, len(mixed))), form) if not at else mixed.append(form)
    assert without_flags([word for each in mixed for word in each]) == (words, folders)


def test_a_file_without_a_name_is_named(own, monkeypatch):
    (own / "model" / "nameless.yaml").write_text(TINY.replace("name: tiny", ""), encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(own))
    with pytest.raises(InvalidRequest, match="has no name"):
        catalog.load_model("nameless")

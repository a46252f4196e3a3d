import json
import shlex

import pytest
from checkpoint_cases import saved
from omegaconf import OmegaConf
from released_configs import RELEASED

from bench.cli.main import main
from bench.sweep.catalog import load_model, model_from
from bench.sweep.config_dirs import in_use
from bench.sweep.model_files import named_model
from engines.weights.checkpoint.describe import model_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("command") / "small"
    saved("llama", folder)
    return folder


def test_prints_a_file_that_makes_the_model(folder, capsys):
    (folder / "model.safetensors").unlink(missing_ok=True)  # the config alone is read
    assert main(["model", f"checkpoint={folder}", "name=mine"]) == 0
    model = model_from(dict(OmegaConf.create(capsys.readouterr().out)))
    assert model == model_of(folder, "mine")
    # Embedding and head; in each of 2 layers q and o, k and v, gate and up and down, norms; a last norm.
    assert model.params == 2 * 61 * 32 + 2 * (2 * 32 * 32 + 2 * 32 * 8 + 3 * 32 * 64 + 2 * 32) + 32
    assert model.mfu_params == model.published_params == model.params


@pytest.fixture
def released(tmp_path):
    """A folder of a released config, called as the model."""

    def write(name, called=None, **changes):
        folder = tmp_path / (called or name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({**RELEASED[name]["config"], **changes}))
        return folder

    return write


def refused(words, capsys):
    assert main(["model", *words]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("shardbench: ")
    assert error.count("\n") == 1
    return error


def test_writes_into_a_config_folder_and_prints_the_command_that_runs_it(released, tmp_path, capsys):
    one, other = released("qwen2.5-1.5b"), released("phi-2")
    mine = tmp_path / "mine"
    assert main(["model", f"checkpoint=[{one},{other / 'config.json'}]", f"out={mine}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"qwen2.5-1.5b: {mine}/model/qwen2.5-1.5b.yaml"
    assert lines[2] == f"phi-2: {mine}/model/phi-2.yaml"
    assert sorted(path.name for path in (mine / "model").iterdir()) == ["phi-2.yaml", "qwen2.5-1.5b.yaml"]
    # Commands as they stand, on the closed forms, which tell whether it fits.
    for line in (lines[1], lines[3]):
        words = shlex.split(line)
        assert words[0] == "shardbench"
        assert main([*words[1:], f"results_dir={tmp_path}/rows", "wandb.mode=disabled", "print=json"]) == 0
        row = json.loads(capsys.readouterr().out)
        assert row["status"] == "ok"
        assert row["model"] in ("qwen2.5-1.5b", "phi-2")


def test_the_config_folder_may_be_that_of_the_command_line(released, tmp_path, capsys):
    folder, mine = released("phi-2"), tmp_path / "mine"
    (mine / "model").mkdir(parents=True)
    assert main(["model", "--config-dir", str(mine), f"checkpoint={folder}"]) == 0
    assert f"phi-2: {mine}/model/phi-2.yaml" in capsys.readouterr().out
    with in_use([str(mine)]):
        assert load_model("phi-2") == model_of(folder)
    words = ["plan", "--config-dir", str(mine), "model=phi-2", "phase=decode", "hw=tpu-v5e", "num_chips=[1,4]"]
    words += ["batch_size=8", "input_len=512", "output_len=32"]
    assert main(words) == 0
    assert "phi-2" in capsys.readouterr().out


def test_writing_the_same_again_changes_nothing_and_another_is_refused(released, tmp_path, capsys):
    words = [f"checkpoint={released('phi-2')}", f"out={tmp_path}/mine"]
    file = tmp_path / "mine/model/phi-2.yaml"
    assert main(["model", *words]) == 0
    first = file.read_text()
    assert main(["model", *words]) == 0
    assert file.read_text() == first
    released("phi-2", intermediate_size=5120)
    capsys.readouterr()
    sentence = refused(words, capsys)
    assert f"out={file}: is there already and holds another model, with d_ff=10240 and not 5120; give" in sentence
    for content in ("[1, 2]", "{", "name: phi-2", "\x00"):
        file.write_text(content)
        assert "is there already and is no model" in refused(words, capsys)
        assert file.read_text() == content


def test_nothing_is_written_where_one_of_several_is_refused(released, tmp_path, capsys):
    good, bad = released("phi-2"), released("olmoe-1b-7b")
    assert "norms of queries and keys over all heads" in refused(
        [f"checkpoint=[{good},{bad}]", f"out={tmp_path}/mine"], capsys
    )
    assert not (tmp_path / "mine").exists()
    same = released("phi-1.5", "elsewhere/phi-2")
    sentence = refused([f"checkpoint=[{good},{same}]", f"out={tmp_path}/mine"], capsys)
    assert f"has the name of {good}, phi-2" in sentence
    assert "are several models" in refused([f"checkpoint=[{good},{released('phi-1')}]"], capsys)
    assert "is one name for 2 checkpoints" in refused([f"checkpoint=[{good},{good}]", "name=a"], capsys)
    assert not (tmp_path / "mine").exists()


def test_a_name_of_ours_is_for_our_model_alone(released, tmp_path, capsys):
    ours = released("llama-3-8b")
    assert main(["model", f"checkpoint={ours}", f"out={tmp_path}/mine"]) == 0
    assert "llama-3-8b: one of shardbench's own, no file is needed" in capsys.readouterr().out
    assert not (tmp_path / "mine").exists()
    longer = released("llama-3.1-8b", "longer")
    sentence = refused([f"checkpoint={longer}", "name=llama-3-8b"], capsys)
    assert "name=llama-3-8b: is one of shardbench's own models, with rotary_factor=1.0" in sentence
    assert "use another, such as name=llama-3-8b-mine" in sentence


@pytest.mark.parametrize("name", ["a/b", "../up", "7b", "1e3", "true", "a b", "a+b=3", ".hidden", "é", "x" * 101])
def test_a_name_is_a_name_of_a_file(name, released, capsys):
    sentence = refused([f"checkpoint={released('phi-2')}", f"name={name}"], capsys)
    assert "is not usable as a name; give name= letters, digits" in sentence


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("My model (new)", "My-model-new"),
        ("models--Qwen--Qwen2.5-7B/snapshots/d149729398750b98c0af14eb82c78cfe92750796", "Qwen2.5-7B"),
    ],
)
def test_the_name_comes_from_the_folder(folder, name, released, tmp_path, capsys):
    path = released("phi-2", folder)
    for each in (path, path / "config.json"):
        assert named_model(each, None).model.name == name
    assert "'7b' is not usable as a name" in refused([f"checkpoint={released('phi-2', '7b')}"], capsys)


def test_a_folder_that_cannot_be_written_is_said(released, tmp_path, capsys):
    folder, file = released("phi-2"), tmp_path / "file"
    file.write_text("kept")
    for out in (file, file / "inside"):
        assert f"out={out}/model/phi-2.yaml: cannot be written" in refused(
            [f"checkpoint={folder}", f"out={out}"], capsys
        )
    assert file.read_text() == "kept"
    assert "is not a folder; give a folder with config.json" in refused(["checkpoint=[/none/at/all]"], capsys)


def test_keys_that_are_not_known_are_told(released, capsys):
    assert main(["model", f"checkpoint={released('phi-2', some_new_key=False, another=[])}"]) == 0
    out, error = capsys.readouterr()
    assert error == "phi-2: not known, and taken as changing nothing since they are empty: some_new_key, another\n"
    assert model_from(dict(OmegaConf.create(out))).name == "phi-2"


@pytest.mark.slow
@pytest.mark.thorough
def test_the_printed_model_runs_from_its_checkpoint(tmp_path, capsys):
    saved("neox", tmp_path / "small")
    assert main(["model", f"checkpoint={tmp_path}/small", "name=mine", f"out={tmp_path}/own"]) == 0
    capsys.readouterr()
    words = [
        "engine=jax",
        f"engine.checkpoint={tmp_path}/small",
        "hw=cpu",
        "num_chips=1",
        "batch_size=2",
        "input_len=4",
    ]
    words += ["output_len=2", "weight_dtype=float32", f"results_dir={tmp_path}/rows", "timing.max_relative_ci=1"]
    words += ["wandb.mode=disabled"]
    assert main(["run", "--config-dir", f"{tmp_path}/own", "model=mine", *words, "print=json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["model"] == "mine"
    assert row["details"]["checkpoint"].startswith("small@")
    assert 0 < row["max_relative_error"] < 1e-5


def test_says_what_is_no_checkpoint(tmp_path, capsys):
    assert main(["model", f"checkpoint={tmp_path}"]) == 2
    assert f"shardbench: checkpoint={tmp_path}: has no config.json" in capsys.readouterr().err
    assert main(["model"]) == 2
    assert "checkpoint" in capsys.readouterr().err

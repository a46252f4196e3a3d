import json

import pytest
from checkpoint_cases import saved
from omegaconf import OmegaConf

from bench.cli.main import main
from bench.sweep.catalog import model_from
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


@pytest.mark.slow
def test_the_printed_model_runs_from_its_checkpoint(tmp_path, capsys):
    saved("neox", tmp_path / "small")
    assert main(["model", f"checkpoint={tmp_path}/small", "name=mine"]) == 0
    (tmp_path / "own/model").mkdir(parents=True)
    (tmp_path / "own/model/mine.yaml").write_text(capsys.readouterr().out)
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

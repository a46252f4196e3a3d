import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.commands.env import EXTRAS
from bench.cli.main import main
from bench.run.environment import read_environment


def test_versions_are_those_of_what_is_installed():
    import numpy

    environment = read_environment()
    assert environment.versions["numpy"] == numpy.__version__
    assert environment.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment.cores >= 1
    assert environment.memory_bytes > 2**28
    assert read_environment() is environment


def test_the_commit_is_the_checkouts():
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("no checkout")
    words = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert read_environment().git_sha == (done.stdout.strip() or None)


def test_looking_around_imports_nothing_heavy():
    code = "import sys; from bench.run.environment import read_environment; read_environment(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jax", "torch", "pandas", "wandb"} & set(done.stdout.split())


def test_env_as_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main(["env", f"results_dir={tmp_path / 'none'}", "print=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["results_dir"] == str(tmp_path / "none")
    assert found["results_dir_exists"] is False
    assert found["wandb_mode"] == "disabled"
    assert set(found["extras"]) == set(EXTRAS)
    assert found["extras"]["fit"] is True
    assert "devices" not in found


@pytest.mark.slow
def test_env_asks_for_devices_in_another_process(capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    assert main(["env", "devices=true"]) == 0
    out = capsys.readouterr().out
    assert "platform cpu" in out
    assert "count 3" in out


def test_extras_are_those_of_the_package():
    import tomllib

    path = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(path.read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"all", "test"}

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.run import extras
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


@pytest.mark.parametrize(
    ("says", "driver", "gpus"),
    [
        ("echo 550.54.15, NVIDIA H100 80GB HBM3, 700.00 W", "550.54.15", ["NVIDIA H100 80GB HBM3, 700.00 W"]),
        (
            "echo 535.1, NVIDIA L4, [N/A]; echo 535.1, NVIDIA L4, 72.00 W",
            "535.1",
            ["NVIDIA L4, [N/A]", "NVIDIA L4, 72.00 W"],
        ),
        ("echo No devices were found >&2; exit 6", None, []),
    ],
)
def test_gpus_are_told_in_the_driver_s_words(tmp_path, monkeypatch, says, driver, gpus):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = read_environment.__wrapped__()
    assert (found.versions.get("driver"), found.gpus) == (driver, gpus)


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
    assert found["extras"]["fit"] is True
    assert {"jax", "torch", "all"} <= set(found["extras"])
    assert "devices" not in found


@pytest.mark.slow
def test_env_asks_for_devices_in_another_process(capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    assert main(["env", "devices=true"]) == 0
    out = capsys.readouterr().out
    assert "platform cpu" in out
    assert "count 3" in out


MADE = """Metadata-Version: 2.3
Name: shardbench
Version: 1
Requires-Dist: numpy
Requires-Dist: pytest; extra == "here"
Requires-Dist: pytest>=1000; extra == "too-new"
Requires-Dist: no-such-library; extra == "absent"
Requires-Dist: pytest; extra == "all"
Requires-Dist: no-such-library; extra == "all"
Provides-Extra: all
Provides-Extra: here
Provides-Extra: too-new
Provides-Extra: absent
"""


def test_extras_are_what_the_package_s_metadata_says(tmp_path, monkeypatch):
    found = tmp_path / "shardbench-1.dist-info"
    found.mkdir()
    (found / "METADATA").write_text(MADE)
    monkeypatch.syspath_prepend(str(tmp_path))
    extras._requirements.cache_clear()
    try:
        assert extras.extras() == {"all": False, "here": True, "too-new": False, "absent": False}
        assert extras.extra_of("no_such_library.part") == "absent"
        assert extras.extra_of("numpy") is None
    finally:
        extras._requirements.cache_clear()

"""What a user gets who installs the wheel and has no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's content in a folder of its own, as site-packages would hold it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(site, folder, *words):
    # -P: not the current folder, which would be the checkout's if the tests ran there.
    return subprocess.run(
        [sys.executable, "-P", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_configs_and_data_travel_in_the_wheel(installed):
    for group in ("model", "hw", "engine", "sweep", "timing", "wandb", "price"):
        here = {path.name for path in (ROOT / "conf" / group).glob("*.yaml")}
        assert here
        assert {path.name for path in (installed / "engines" / "conf" / group).glob("*.yaml")} == here
    data = {path.name for path in (ROOT / "engines" / "published" / "data").iterdir()}
    assert {path.name for path in (installed / "engines" / "published" / "data").iterdir()} == data
    site = ROOT / "bench" / "dashboard" / "site"
    for path in (each for each in site.rglob("*") if each.is_file()):
        assert (installed / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    assert not (installed / "tests").exists()


@pytest.mark.parametrize("package", ["bench", "engines"])
def test_the_wheel_says_that_its_packages_are_typed(installed, package):
    assert (installed / package / "py.typed").is_file()


def test_the_wheel_runs_outside_the_checkout(installed, tmp_path):
    where = run(installed, tmp_path, "-c", "import bench; print(bench.__file__)")
    assert where.stdout.startswith(str(installed))
    done = run(installed, tmp_path, "-m", "bench.cli.main", "run", "wandb.mode=disabled", "engine=[published,analytic]")
    assert done.returncode == 0, done.stderr
    assert "predicted" in done.stdout
    assert list((tmp_path / "results" / "rows").glob("*.jsonl"))


def test_the_extras_that_users_expect(installed):
    (metadata,) = installed.glob("*.dist-info/METADATA")
    extras = {line.split(": ")[1] for line in metadata.read_text().splitlines() if line.startswith("Provides-Extra")}
    assert {"tpu", "gpu", "torch", "jax", "report", "dashboard", "wandb", "docs", "test", "all"} <= extras

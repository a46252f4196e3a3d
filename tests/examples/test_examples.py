"""Every example runs, from any folder, and prints what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = {"rows.ipynb": ("ms a step, MFU", "did you mean batch_size=")}
"""Notebook → what its cells print, among other things."""
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PRINTS = {
    "predict_sweep.py": "cheapest within 50 ms a step",
    "compare_collectives.py": "ws_2d: ",
    "read_store.py": "palm-540b: mean error",
    "own_engine.py": "s a step",
}


@pytest.fixture
def environment(tmp_path):
    """This checkout's packages and a ``shardbench`` that runs them."""
    script = tmp_path / "bin" / "shardbench"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bench.cli.main "$@"\n')
    script.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{script.parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{EXAMPLES}",
        "WANDB_MODE": "disabled",
    }


def run(words, folder, environment):
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_script_is_tested_and_listed():
    scripts = {path.name for path in EXAMPLES.glob("*.*")} - {"README.md"}
    assert scripts == {*PRINTS, *NOTEBOOKS, "own_model_and_chip.sh"}
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"({name})" in readme for name in scripts)


@pytest.mark.parametrize("name", sorted(PRINTS))
def test_a_script_prints_what_it_promises(name, tmp_path, environment):
    assert PRINTS[name] in run([sys.executable, str(EXAMPLES / name)], tmp_path, environment)


@pytest.mark.slow(seconds=7)
@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_a_notebook_runs_and_is_stored_without_what_it_printed(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = [output for cell in code for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert all(words in printed for words in NOTEBOOKS[name])
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


def test_two_dimensions_send_less_than_one(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from compare_collectives import collectives_of

    one, two = (sum(each.payload_bytes for each in collectives_of(layout)) for layout in ("ws_1d", "ws_2d"))
    assert two < one


def test_own_model_chip_and_sweep_are_one_file_each(tmp_path, environment):
    printed = run(["bash", str(EXAMPLES / "own_model_and_chip.sh"), "rows"], tmp_path, environment)
    assert "model=mine-3b, hw=mychip" in printed
    assert (tmp_path / "rows" / "rows").is_dir()


def test_own_engine_is_one_class_and_one_file(tmp_path, environment):
    words = ["shardbench", "run", "--config-dir", str(EXAMPLES / "own"), "engine=roofline"]
    printed = run([*words, "model=palm-62b", "num_chips=16", "results_dir=rows"], tmp_path, environment)
    assert "roofline" in printed


def test_the_pivot_tables_are_printed(tmp_path, environment):
    printed = run(["bash", str(EXAMPLES / "reports" / "pivot.sh"), str(tmp_path)], tmp_path, environment)
    assert "| palm-540b | int8 | predicted |" in printed
    assert (tmp_path / "costs" / "pivot" / "pivot.md").is_file()

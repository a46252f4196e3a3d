"""The library's own ``wandb sync`` reads the offline runs and uploads them: to a stand-in for the server."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from builders.rows import a_row
from wandb_stand_in import running

from bench.rows.store import row_of
from bench.run.tracking import open_tracker, run_id

pytest.importorskip("wandb")

MEASURED = a_row(
    sweep="palm",
    program_id="fedcba9876543210",
    latency_s=0.5,
    step_time_s=0.125,
    mfu=0.25,
    samples_s=[0.4, 0.5, 0.6],
    n=3,
    valid=True,
)
LARGER = replace(MEASURED, batch_size=16, point_id="e" * 16, step_time_s=0.25)
FAILED = a_row(sweep="palm", batch_size=8, point_id="f" * 16, status="failed", error='it "broke" <b>')
PREDICTED = a_row(sweep="palm", source="predicted", engine="analytic", mesh_shape=[2, 2, 2], latency_s=0.5, mfu=0.3)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server after a sweep was logged offline, by a process that has ended, and uploaded by another."""
    home = tmp_path_factory.mktemp("home")
    settings = {"mode": "offline", "project": "mine", "entity": None, "sources": ["measured"], "report": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        for name in ("WANDB_MODE", "WANDB_API_KEY"):
            patch.delenv(name, raising=False)
        tracker = open_tracker({**settings, "results_dir": str(home / "results")})
        logged = [tracker.log_row(row) for row in (MEASURED, LARGER, FAILED, PREDICTED)]
        tracker.log_sweep("palm", [MEASURED, LARGER, FAILED, PREDICTED])
        tracker.close()
    assert logged == [True, True, True, False]
    runs = sorted(map(str, (home / "results" / "wandb").glob("offline-run-*")))
    with running() as server:
        variables = {"HOME": str(home), "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40}
        words = [sys.executable, "-m", "wandb", "sync", *runs]
        done = subprocess.run(
            words, env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        yield server


def sweep_of(server):
    (found,) = (name for name, run in server.runs.items() if run.fields["jobType"] == "sweep")
    return found


def test_every_run_arrives_in_full(server):
    assert len(server.runs) == 4
    assert {run.fields["project"] for run in server.runs.values()} == {"mine"}
    assert all(artifact.committed for artifact in server.artifacts.values())
    assert set(server.unknown) <= {"ServerFeaturesQuery"}


def test_a_point_arrives_with_its_keys_figures_and_samples(server):
    run = server.runs[run_id(MEASURED)]
    assert (run.fields["groupName"], run.fields["jobType"], run.exit_code) == ("palm", "decode", 0)
    assert run.fields["displayName"] == "tiny decode b4 n8"
    assert {"tiny", "cpu", "jax", "measured"} <= set(run.fields["tags"])
    assert (run.config["batch_size"], run.config["model"]) == (4, "tiny")
    assert {key: run.summary[key] for key in ("latency_s", "mfu", "n", "valid")} == {
        "latency_s": 0.5,
        "mfu": 0.25,
        "n": 3,
        "valid": True,
    }
    (table,) = (file for name, file in run.files.items() if name.startswith("media/table/samples"))
    assert json.loads(table)["data"] == [[0, 0.4], [1, 0.5], [2, 0.6]]


def test_a_point_that_failed_arrives_as_failed(server):
    run = server.runs[run_id(FAILED)]
    assert run.exit_code == 1
    assert (run.summary["status"], run.summary["error"]) == ("failed", 'it "broke" <b>')


def test_a_sweep_arrives_with_its_table_and_rows(server):
    run = server.runs[sweep_of(server)]
    (table,) = (file for name, file in run.files.items() if name.startswith("media/table/rows"))
    content = json.loads(table)
    cells = [dict(zip(content["columns"], line, strict=True)) for line in content["data"]]
    assert [(cell["source"], cell["status"]) for cell in cells] == [
        ("measured", "ok"),
        ("measured", "ok"),
        ("measured", "failed"),
        ("predicted", "ok"),
    ]
    artifact = server.artifact("rows-palm")
    assert artifact.kind == "rows"
    rows = [row_of(line) for line in artifact.content["rows.jsonl"].decode().splitlines()]
    assert rows == [MEASURED, LARGER, FAILED, PREDICTED]


def test_a_sweep_arrives_with_its_figures_and_report(server):
    report = server.artifact("report-palm")
    names = set(report.manifest["contents"])
    assert {"report.md", "manifest.json"} <= names
    assert b"# palm" in report.content["report.md"]
    figures = {name.removesuffix(".png") for name in names if name.endswith(".png")}
    assert figures == {"figures/measured_step_time"}
    shown = {key for key, value in server.runs[sweep_of(server)].summary.items() if _is_picture(value)}
    assert shown == figures
    for name, size in ((each, entry["size"]) for each, entry in report.manifest["contents"].items()):
        assert len(report.content[name]) == size


def _is_picture(value):
    return isinstance(value, dict) and value.get("_type") == "image-file"

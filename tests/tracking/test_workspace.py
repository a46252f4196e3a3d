"""A view of the project that draws latency and MFU: written as a file, and saved on a stand-in for the server."""

import json

import pytest
from test_tracking import no_account  # noqa: F401 - a fixture
from wandb_stand_in import running

from bench.cli.main import main
from bench.rows.metrics import METRICS
from bench.run import wandb_workspace
from engines.core.row import POINT_FIELDS

pytest.importorskip("wandb_workspaces")


def panels(spec):
    """Axes of every panel of a view."""
    sections = spec["section"]["panelBankConfig"]["sections"]
    configs = [panel["config"] for section in sections for panel in section["panels"]]
    return [(config["xAxis"], config["yAxis"]) for config in configs if "xAxis" in config]


def check(spec):
    axes = panels(spec)
    assert ("config:batch_size.value", "summary:latency_s") in axes
    assert ("summary:latency_s", "summary:mfu") in axes
    for axis in (each for pair in axes for each in pair):
        section, _, name = axis.partition(":")
        known = METRICS if section == "summary" else POINT_FIELDS
        assert name.removesuffix(".value") in known
    (runs,) = spec["section"]["runSets"]
    assert "sweep" in json.dumps(runs["filters"])


def test_without_a_network_the_view_is_a_file(tmp_path, capfd):
    out = tmp_path / "view.json"
    words = ["wandb", "workspace", "project=mine", f"out={out}", "print=json"]
    assert main(words) == 0
    content = json.loads(out.read_text())
    assert (content["projectName"], content["type"]) == ("mine", "project-view")
    check(content["spec"])
    said = json.loads(capfd.readouterr().out)
    assert said == {"out": str(out), "next": "shardbench wandb workspace project=mine mode=online"}


def test_the_view_is_saved_on_the_server(monkeypatch, capfd):
    with running() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        assert main(["wandb", "workspace", "project=mine", "print=json"]) == 0
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("someone", "mine", "shardbench")
    check(json.loads(view["spec"]))
    assert json.loads(capfd.readouterr().out)["url"].startswith(f"{server.url}/someone/mine?nw=")


def test_a_server_that_cannot_be_reached_is_one_sentence(monkeypatch, capfd):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert main(["wandb", "workspace", "mode=online"]) == 2
    assert "mode=offline writes it as a file" in capfd.readouterr().err


def test_where_the_package_is_not_installed(monkeypatch, capfd):
    monkeypatch.setattr(wandb_workspace.importlib.util, "find_spec", lambda name: None)
    assert main(["wandb", "workspace", "mode=offline"]) == 2
    assert "needs wandb-workspaces" in capfd.readouterr().err

"""Weights & Biases as installed, offline, in a folder of its own."""

import json
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from builders.rows import a_row

from bench.run import tracking, wandb_mode, wandb_session
from bench.run.tracking import Tracker, open_tracker
from bench.run.wandb_log import records
from engines.core.errors import InvalidRequest

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "240")  # seconds until its service must have started: 30 by itself
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    yield
    wandb.teardown()
    logging.getLogger("wandb").handlers.clear()


def config(tmp_path, **changes):
    return {
        "mode": "auto",
        "project": "shardbench",
        "entity": None,
        "sources": ["measured", "compiled"],
        "report": False,
        "results_dir": str(tmp_path / "results"),
        **changes,
    }


def run_of(path):
    """The run's own record, its config and the last of every key of its summary."""
    run, summary = None, {}
    for record in records(path):
        if record.WhichOneof("record_type") == "run":
            run = record.run
        for part in (record.summary.update, record.history.item):
            for item in part:
                key = item.key or ".".join(item.nested_key)
                summary[key] = json.loads(item.value_json)
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    return run, settings, summary


def runs(tmp_path):
    return sorted((tmp_path / "results" / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_point_is_a_run_with_its_keys_and_figures(tmp_path, capfd):
    tracker = open_tracker(config(tmp_path))
    row = a_row(
        sweep="nightly",
        program_id="fedcba9876543210",
        ffn_layout="ws_2d",
        latency_s=0.5,
        mfu=0.25,
        samples_s=[0.4, 0.5, 0.6],
        n=3,
        valid=True,
    )
    tracker.log_row(row)
    tracker.close()
    (path,) = runs(tmp_path)
    run, settings, summary = run_of(path)
    assert run.run_id == f"{row.point_id}-{row.program_id}"
    assert run.run_group == "nightly"
    assert run.job_type == "decode"
    assert {"tiny", "cpu", "jax", "measured", "ws_2d"} <= set(run.tags)
    assert settings["batch_size"] == 4
    assert settings["ffn_layout"] == "ws_2d"
    assert (summary["latency_s"], summary["mfu"], summary["n"]) == (0.5, 0.25, 3)
    assert (summary["status"], summary["valid"]) == ("ok", True)
    (table,) = path.parent.glob("files/media/table/samples*.json")
    assert json.loads(table.read_text())["data"] == [[0, 0.4], [1, 0.5], [2, 0.6]]
    assert capfd.readouterr() == ("", "")


def test_only_asked_sources_get_a_run(tmp_path):
    tracker = open_tracker(config(tmp_path))
    tracker.log_row(a_row(source="predicted", engine="analytic"))
    assert runs(tmp_path) == []


def test_a_row_without_a_time_is_logged_with_its_reason(tmp_path):
    tracker = open_tracker(config(tmp_path))
    tracker.log_row(a_row(status="oom", error="needs 3 GB more than a chip has"))
    tracker.close()
    _, _, summary = run_of(runs(tmp_path)[0])
    assert (summary["status"], summary["error"]) == ("oom", "needs 3 GB more than a chip has")
    assert "latency_s" not in summary


def test_a_sweep_is_a_run_with_a_table_and_files(tmp_path):
    report = tmp_path / "report.md"
    report.write_text("found")
    tracker = open_tracker(config(tmp_path))
    rows = [a_row(), a_row(source="predicted", batch_size=8, mesh_shape=[2, 2, 2], latency_s=0.5)]
    tracker.log_report("palm", rows, {"report.md": report})
    tracker.close()
    (path,) = runs(tmp_path)
    run, _, _ = run_of(path)
    assert (run.display_name, run.job_type) == ("palm", "sweep")
    (table,) = path.parent.glob("files/media/table/rows*.json")
    content = json.loads(table.read_text())
    cells = [dict(zip(content["columns"], line, strict=True)) for line in content["data"]]
    assert [cell["source"] for cell in cells] == ["measured", "predicted"]
    assert [cell["latency_s"] for cell in cells] == [None, 0.5]
    names = [record.request.log_artifact.artifact.name for record in records(path)]
    names += [record.artifact.name for record in records(path)]
    assert "report-palm" in names


def test_a_broken_sink_is_one_line_and_no_more(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    tracker = open_tracker(config(tmp_path, results_dir=str(tmp_path / "file")))
    for _ in range(3):
        tracker.log_row(a_row())
    tracker.log_sweep("palm", [a_row()])
    tracker.close()
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "the store has every row" in err


def test_modes(tmp_path, monkeypatch):
    assert open_tracker(config(tmp_path, mode="disabled")) is None
    assert isinstance(open_tracker(config(tmp_path, mode="offline")), Tracker)
    with pytest.raises(InvalidRequest, match=r"wandb\.mode=ofline.*offline"):
        open_tracker(config(tmp_path, mode="ofline"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert open_tracker(config(tmp_path)) is None


def test_auto_is_online_only_where_there_is_a_key(tmp_path, monkeypatch):
    assert wandb_mode.resolved_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_mode.resolved_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode.resolved_mode("auto") == "offline"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY")
    login = Path(tmp_path / "home" / "netrc")
    login.parent.mkdir()
    login.write_text(f"machine api.wandb.ai login user password {'0' * 40}\n")
    login.chmod(0o600)
    assert wandb_mode.resolved_mode("auto") == "online"


@pytest.fixture
def silent_server(monkeypatch):
    """An address that takes connections and never answers, which is what a firewall makes of a server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        yield server


class Greeter(BaseHTTPRequestHandler):
    """Answers whether it is there, and nothing else."""

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        self.server.over.wait()

    def log_message(self, *words):
        pass


@pytest.fixture
def deaf_server(monkeypatch):
    """A server that is there and lets no run begin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Greeter)
    server.over = threading.Event()
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def logged_offline(tmp_path, capfd, rows):
    tracker = open_tracker(config(tmp_path))
    assert [tracker.log_row(row) for row in rows] == [True] * len(rows)
    tracker.close()
    assert sorted(run_of(path)[0].run_id for path in runs(tmp_path)) == sorted(tracking.run_id(row) for row in rows)
    out, err = capfd.readouterr()
    assert out == ""
    return err


def test_a_key_without_a_network_logs_offline_and_says_so_once(tmp_path, capfd, monkeypatch, silent_server):
    monkeypatch.setattr(wandb_session, "REACH_TIMEOUT_S", 0.2)
    err = logged_offline(tmp_path, capfd, [a_row(), a_row(batch_size=8)])
    (line,) = err.splitlines()
    assert "did not answer within 0.2 s; logging offline" in line
    assert f"wandb sync {tmp_path / 'results' / 'wandb'}/offline-run-*" in line


def test_a_port_that_nobody_serves_logs_offline(tmp_path, capfd, silent_server):
    silent_server.close()
    assert "cannot be reached" in logged_offline(tmp_path, capfd, [a_row()])


def test_a_server_that_lets_no_run_begin_logs_offline(tmp_path, capfd, monkeypatch, deaf_server):
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_S", 1.0)
    err = logged_offline(tmp_path, capfd, [a_row(), a_row(batch_size=8)])
    assert err.count("logging offline from here on") == 1


def test_any_answer_of_a_server_is_one(deaf_server):
    base = f"http://127.0.0.1:{deaf_server.server_port}"
    assert wandb_mode.unreachable(base, 60) is None
    monkey = Greeter.do_HEAD
    try:
        Greeter.do_HEAD = lambda self: self.send_error(403)
        assert wandb_mode.unreachable(base, 60) is None
    finally:
        Greeter.do_HEAD = monkey
    assert "cannot be reached" in wandb_mode.unreachable("nonsense", 60)
    assert "cannot be reached" in wandb_mode.unreachable("http://no-such-host.invalid", 60)


def test_where_wandb_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_mode.importlib.util, "find_spec", lambda name: None)
    assert open_tracker(config(tmp_path)) is None
    with pytest.raises(InvalidRequest, match=r"wandb\.mode=offline.*pip install 'shardbench\[wandb\]'"):
        open_tracker(config(tmp_path, mode="offline"))

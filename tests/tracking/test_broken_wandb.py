"""What goes wrong with the library costs no row, no time beyond the limits, and leaves no half of a run."""

import os
import resource
import signal
import time

import pytest
from builders.rows import a_row
from test_tracking import config, no_account, run_of, runs  # noqa: F401 - a fixture

from bench.run import wandb_session
from bench.run.tracking import open_tracker
from bench.run.wandb_log import is_whole, records
from engines.host.resident import children

wandb = pytest.importorskip("wandb")

SERVICE = wandb_session.SERVICE


def row(number):
    return a_row(point_id=f"{number:016x}", latency_s=0.5, samples_s=[0.5] * 3)


def rows_after(tmp_path, capfd, harm):
    """What is logged of a row before the service is harmed and of two after it, and the seconds that those take."""
    tracker = open_tracker(config(tmp_path))
    assert tracker.log_row(row(0))
    (service,) = children(SERVICE)
    harm(service)
    start = time.monotonic()
    assert [tracker.log_row(row(1)), tracker.log_row(row(2))] == [False, False]
    tracker.log_sweep("palm", [row(0)])
    tracker.close()
    took = time.monotonic() - start
    (line,) = capfd.readouterr().err.splitlines()
    assert "logging is off for the rest of this command, the store has every row" in line
    assert [run_of(path)[0].run_id for path in runs(tmp_path)] == [row(0).point_id]
    assert all(map(is_whole, runs(tmp_path)))
    assert len(list((tmp_path / "results" / "wandb").glob("offline-run-*"))) == 1
    wandb_session.end_service()
    assert children(SERVICE) == []
    return took, line


def test_a_service_that_dies(tmp_path, capfd):
    rows_after(tmp_path, capfd, lambda number: os.kill(number, signal.SIGKILL))


def test_a_service_that_hangs(tmp_path, capfd, monkeypatch):
    def hang(number):
        # From here on: on a busy machine a service that is well may need more than a second for its first run.
        monkeypatch.setattr(wandb_session, "ACTION_TIMEOUT_S", 1.0)
        monkeypatch.setattr(wandb_session, "END_TIMEOUT_S", 0.2)
        os.kill(number, signal.SIGSTOP)

    took, line = rows_after(tmp_path, capfd, hang)
    assert "did not answer within 1 s" in line
    assert took < 60


def test_a_disk_without_room_for_the_run(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(wandb_session, "WRITE_TIMEOUT_S", 0.2)
    rows_after(tmp_path, capfd, lambda number: resource.prlimit(number, resource.RLIMIT_FSIZE, (1000, 1000)))


def test_a_log_is_whole_once_it_says_how_the_run_ended(tmp_path):
    tracker = open_tracker(config(tmp_path))
    tracker.log_row(row(0))
    tracker.close()
    (path,) = runs(tmp_path)
    assert is_whole(path)
    content, last = path.read_bytes(), len(list(records(path)))
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        assert len(list(records(path))) <= last
        assert is_whole(path) == ("exit" in {record.WhichOneof("record_type") for record in records(path)})
    path.write_bytes(content[: len(content) // 2])
    assert not is_whole(path)
    path.unlink()
    assert not is_whole(path)

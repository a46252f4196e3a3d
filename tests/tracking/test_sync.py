"""Rows that were stored without Weights & Biases are logged later, each once."""

import json

import pytest
from builders.rows import a_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tracking import no_account, run_of, runs  # noqa: F401 - a fixture

from bench.cli.main import main
from bench.rows.store import Store
from bench.run.logged_rows import LoggedRows
from bench.run.tracking import open_tracker, run_id

wandb = pytest.importorskip("wandb")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def row(**changes):
    return a_row(
        **{"program_id": "fedcba9876543210", "latency_s": 0.5, "created_at": "2026-01-01T00:00:00+00:00"} | changes
    )


def sync(store, capfd, *words, code=0):
    assert main(["wandb", "sync", f"results_dir={store.results_dir}", "print=json", *words]) == code
    wandb.teardown()
    return json.loads(capfd.readouterr().out)


def logged(tmp_path):
    return sorted(run_of(path)[0].run_id for path in runs(tmp_path))


def points_and_sweeps(tmp_path):
    """First letters of the runs of points, and names of the runs of sweeps."""
    found = [run_of(path)[0] for path in runs(tmp_path)]
    points = sorted(run.run_id[:1] for run in found if run.job_type != "sweep")
    return points, [run.display_name for run in found if run.job_type == "sweep"]


def test_each_row_is_logged_once(store, tmp_path, capfd):
    rows = [row(point_id=f"{number:016x}") for number in range(3)]
    store.append(rows[:2])
    first = sync(store, capfd)
    assert (first["logged"], first["logged_before"], first["offline_runs"]) == (2, 0, 2)
    assert first["next"] == f"wandb sync {store.results_dir / 'wandb'}/offline-run-*"
    store.append(rows[2:])
    assert sync(store, capfd)["logged"] == 1
    assert sync(store, capfd)["logged"] == 0
    assert logged(tmp_path) == [run_id(each) for each in rows]
    assert store.load() == rows


def test_what_a_command_logged_as_it_ran_is_not_logged_again(store, tmp_path, capfd):
    rows = [row(point_id=f"{number:016x}") for number in range(2)]
    store.append(rows)
    settings = {"mode": "offline", "project": "p", "entity": None, "sources": ["measured"], "report": False}
    tracker = open_tracker({**settings, "results_dir": str(store.results_dir)})
    assert tracker.log_row(rows[0])
    tracker.close()
    found = sync(store, capfd)
    assert (found["logged"], found["logged_before"]) == (1, 1)
    assert logged(tmp_path) == [run_id(each) for each in rows]


def test_rows_of_one_run_are_one_run_of_the_newest(store, tmp_path, capfd):
    """As where a night measures a point three times."""
    store.append([row(created_at=f"2026-01-0{day}T00:00:00+00:00", latency_s=float(day)) for day in (2, 3, 1)])
    assert sync(store, capfd)["logged"] == 1
    assert sync(store, capfd) == {"logged": 0, "logged_before": 3, "failed": 0, "offline_runs": 1} | {
        "next": f"wandb sync {store.results_dir / 'wandb'}/offline-run-*"
    }
    (path,) = runs(tmp_path)
    assert run_of(path)[2]["latency_s"] == 3.0


def test_a_sweep_and_sources_are_chosen(store, tmp_path, capfd):
    store.append(
        [
            row(point_id="a" * 16, sweep="mine"),
            row(point_id="b" * 16, sweep="other"),
            row(point_id="c" * 16, sweep="mine", source="predicted"),
        ]
    )
    assert sync(store, capfd, "sweep=mine")["logged"] == 1
    assert sync(store, capfd, "sweep=mine")["logged"] == 0
    assert points_and_sweeps(tmp_path) == (["a"], ["mine"])
    assert sync(store, capfd, "source=predicted")["logged"] == 1
    assert points_and_sweeps(tmp_path) == (["a", "c"], ["mine"])


def test_rows_that_cannot_be_logged_are_told_and_stay_to_be_logged(store, tmp_path, capfd):
    store.append([row()])
    (store.results_dir / "wandb").write_text("a file where the runs belong")
    assert main(["wandb", "sync", f"results_dir={store.results_dir}"]) == 3
    assert "1 could not be logged" in capfd.readouterr().out
    (store.results_dir / "wandb").unlink()
    assert sync(store, capfd)["logged"] == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sync", "results_dir=nowhere"], "results_dir=nowhere: does not exist"),
        (["results_dir=nowhere"], "verb"),
        (["sync", "mode=disabled"], "mode=disabled: is not known"),
        (["send"], "verb=send: is not known"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(capfd, words, told):
    assert main(["wandb", *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert told in line


def test_turned_off_by_the_library_s_own_variable(store, capfd, monkeypatch):
    store.append([row()])
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main(["wandb", "sync", f"results_dir={store.results_dir}"]) == 2
    assert "unset WANDB_MODE" in capfd.readouterr().err


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.sampled_from([None, "f" * 16])), max_size=12))
def test_what_was_logged_is_never_left_to_be_logged(tmp_path_factory, steps):
    """Two processes that log in any order, each unaware of the other."""
    folder = tmp_path_factory.mktemp("store")
    everything = [
        row(point_id=f"{number:016x}", program_id=program) for number in range(6) for program in (None, "f" * 16)
    ]
    added = []
    for _, number, program in steps:
        added.append(row(point_id=f"{number:016x}", program_id=program))
        LoggedRows(folder).add(added[-1:])
    left = LoggedRows(folder).without(everything)
    assert left == [each for each in everything if each not in added]

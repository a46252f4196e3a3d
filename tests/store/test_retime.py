"""Compiled rows of an earlier timing model are asked again: of the same answer they only say so."""

import json
import math
import os
import sys
from dataclasses import replace
from typing import ClassVar

import pytest
from builders.points import point as build_point
from builders.rows import a_row
from retimed_engine import DOES_NOT_FIT, FAILS, RetimedEngine

from bench.cli.main import main
from bench.measure.timing import TimingConfig
from bench.rows.standing import standing_rows
from bench.rows.store import Store
from bench.run import again
from bench.run import retime as subject
from bench.run.keys import code_id, code_id_of, point_id
from bench.run.make_row import PointTask
from bench.run.retime import difference, retime
from bench.run.worker import answer
from engines.compiled.cost import version
from engines.compiled.cost.version import is_present

YESTERDAY = "2026-01-02T03:04:05.006+00:00"


class Inside:
    """Answers in this process, as :class:`bench.run.parallel.Workers` does in its children."""

    asked: ClassVar = []

    def __init__(self, config, *_):
        self._engine = subject.make_engine(config)

    def evaluate(self, tasks, may_start, beside):
        for task in tasks:
            assert may_start(task)
            self.asked.append(task.point.batch_size)
            yield task, answer(self._engine, task, TimingConfig())


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    def by_config(rows):
        groups, refused = again.by_config(rows)
        return [({**config, "_target_": "retimed_engine.RetimedEngine"}, each) for config, each in groups], refused

    monkeypatch.setattr(subject, "by_config", by_config)


@pytest.fixture
def inside(monkeypatch):
    monkeypatch.setattr(subject, "Workers", Inside)
    monkeypatch.setattr(Inside, "asked", [])


def now(batch_size, *, unroll_layers=False):
    """The row that the engine gives now."""
    engine = RetimedEngine(unroll_layers=unroll_layers)
    sizes = {"num_chips": 4, "phase": "decode", "batch_size": batch_size, "input_len": 7, "output_len": 1}
    of = build_point("tiny", "tpu-v4", engine="compiled", **sizes)
    code = code_id_of(engine, code_id(engine), of)
    asked = PointTask(point=of, point_id=point_id(engine, of), source="compiled", sweep="a sweep", code_id=code)
    return answer(engine, asked, TimingConfig())


def old(row, **changes):
    """The row as it was before rows told their timing model."""
    details = {key: value for key, value in row.details.items() if key != version.DETAIL} | {"only then": 1}
    keys = {"program_id": "before", "code_id": "before", "created_at": YESTERDAY, "took_s": 9.0}
    return replace(row, **{**keys, "details": details, **changes})


def standing(store):
    return standing_rows(store.load())


def test_each_row_is_asked_as_it_was_and_says_only_what_is_new(tmp_path, capsys, monkeypatch):
    """By the command, in children."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    store = Store(tmp_path)
    alike = [now(2), now(2, unroll_layers=True), now(DOES_NOT_FIT)]
    slower, fails = now(3), replace(now(FAILS), status="ok", valid=True, latency_s=1.0)
    rounded = {"mfu": math.nextafter(alike[0].mfu, 1)}  # follows from the time: another order of sums is no change
    before = [old(alike[0], **rounded), *map(old, alike[1:]), old(slower, step_time_s=0.004), old(fails), a_row()]
    store.append(before)
    assert main(["results", "rekey", f"results_dir={tmp_path}", "print=json"]) == 0
    told = json.loads(capsys.readouterr().out)["retimed"]
    after = standing(store)
    assert told["same"] == len(alike)
    for was, row in zip(before, alike, strict=False):
        found = after[row.point_id]
        assert found.details == was.details | {version.DETAIL: row.details[version.DETAIL]}
        assert replace(found, details=was.details, program_id="before", code_id="before") == was
        assert (found.program_id, found.code_id) == (row.program_id, row.code_id)
    (changed,) = told["changed"]
    assert (changed["key"], changed["before"], changed["now"]) == ("step_time_s", 0.004, 0.003)
    assert after[slower.point_id].step_time_s == 0.003
    assert after[slower.point_id].created_at > YESTERDAY
    (left,) = told["left"]
    assert "is a Friday" in left["reason"]
    assert after[fails.point_id] == before[4]
    # What was answered otherwise stays in the store, and nothing is there twice.
    assert len(store.load()) == len(before) + 1
    assert main(["results", "rekey", f"results_dir={tmp_path}"]) == 0
    assert "0 rows re-timed: 0 the same, 0 changed; 1 left as they were" in capsys.readouterr().out


def test_a_command_that_was_ended_goes_on_where_it_was(tmp_path, monkeypatch, inside):
    store = Store(tmp_path)
    before = [old(now(size)) for size in (1, 2, 3)]
    store.append(before)
    settle, done = subject._settle, []

    def ended(*words):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(settle(*words))

    with monkeypatch.context() as patch:
        patch.setattr(subject, "_settle", ended)
        with pytest.raises(KeyboardInterrupt):
            retime(store, {})
    assert [is_present(row.details) for row in standing(store).values()] == [True, True, False]
    Inside.asked.clear()
    assert len(retime(store, {}).same) == 1
    assert Inside.asked == [3]
    assert [row.created_at for row in store.load()] == [YESTERDAY] * 3
    assert all(is_present(row.details) for row in store.load())


def test_a_row_keeps_its_place_also_where_a_clock_was_wrong(tmp_path, inside):
    """In a file whose rows count from its own time, the order of the lines says which is newer."""
    store = Store(tmp_path)
    store.append([a_row(created_at="2100-01-01T00:00:00.000+00:00")])
    (part,) = store.parts()
    part.rename(part.with_name("21000101T000000000000-1-aa-n1.jsonl"))
    store = Store(tmp_path)
    first, last = old(now(2), latency_s=7.0, created_at="2026-02-02T00:00:00.000+00:00"), old(now(2))
    store.append([first])
    store.append([last])
    assert len(retime(store, {}).same) == 1
    assert standing(store)[last.point_id].created_at == YESTERDAY
    assert is_present(standing(store)[last.point_id].details)
    assert retime(store, {}) == subject.Retimed()


def test_a_version_that_changed_asks_only_the_rows_that_have_what_it_changed(tmp_path, monkeypatch, inside):
    store = Store(tmp_path)
    store.append([now(1), now(2)])
    assert retime(store, {}) == subject.Retimed()
    monkeypatch.setattr(version, "CHANGES", {**version.CHANGES, 9: ("sort",)})
    assert retime(store, {}) == subject.Retimed()
    monkeypatch.setattr(version, "CHANGES", {**version.CHANGES, 9: ("fusion",)})
    assert len(retime(store, {}).same) == 2
    assert {row.details[version.DETAIL]["version"] for row in store.load()} == {9}
    assert sorted(Inside.asked) == [1, 2]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "tinier"}, "tinier"),
        ({"point_id": "another"}, "it does not record all that it was asked"),
        ({"engine": "of somebody"}, "engine=of somebody is not known"),
        ({"phase": "program"}, "shardbench estimate asks it again"),
        ({"versions": {"libtpu": "0.0.1"}}, "made with libtpu 0.0.1"),
    ],
)
def test_a_row_that_cannot_be_asked_again_stays_with_a_word(tmp_path, monkeypatch, inside, changes, reason):
    monkeypatch.setattr(RetimedEngine, "libraries", ("libtpu",))
    monkeypatch.setattr(again, "versions_of", lambda names: dict.fromkeys(names, "0.0.2"))
    store, row = Store(tmp_path), old(now(2), versions={"libtpu": "0.0.2"})
    store.append([replace(row, **changes)])
    (left,) = retime(store, {}).left
    assert reason in left[1]
    assert store.load() == [replace(row, **changes)]
    assert not Inside.asked


def test_traces_are_written_where_they_are(tmp_path, inside, monkeypatch):
    store, folders = Store(tmp_path), []
    traced = old(now(2))
    store.append([replace(traced, details=traced.details | {"traces": {"decode": "a name"}}), old(now(3))])
    (tmp_path / "traces").mkdir()
    monkeypatch.setattr(
        subject, "make_engine", lambda config: folders.append(config["trace_dir"]) or RetimedEngine(**config)
    )
    found = retime(store, {})
    assert {each for each in folders if each} == {str(tmp_path / "traces")}
    assert None in folders
    assert [row.details.get("traces") for row in sorted(found.same, key=lambda row: row.batch_size)] == [
        {"decode": "a name"},
        None,
    ]


def test_what_was_told_is_compared_to_the_last_digit():
    told = {"latency_s": 0.1, "seconds_by_kind": {"all-gather": 0.2, "fusion": 0.3}, "mesh_shape": [4, 4]}
    assert difference(told, told | {"told only now": 1}) is None
    assert difference(told, told | {"latency_s": 0.1 + 2e-17 * 2}) is not None
    other = told | {"seconds_by_kind": {"all-gather": 0.2}}
    assert difference(told, other) == ("seconds_by_kind.fusion", 0.3, None)
    assert difference(other, told) is None
    assert difference(told, told | {"mesh_shape": [4, 8]}) == ("mesh_shape.1", 4, 8)
    assert difference(told, told | {"mesh_shape": [16]}) == ("mesh_shape", [4, 4], [16])

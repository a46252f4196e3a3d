"""Rows of schema version 1 get the keys of today where they still are the answer, and are dropped with a word else."""

import json
from dataclasses import replace

import pytest
from builders.points import point as build_point
from builders.rows import a_row

from bench.cli.main import main
from bench.measure.timing import TimingConfig
from bench.rows.store import Store
from bench.run import rekey as subject
from bench.run.again import requested_point
from bench.run.keys import code_id, code_id_of, point_id, program_id
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask
from bench.run.rekey import rekey
from bench.run.worker import answer
from bench.sweep.catalog import load_group
from engines.core.errors import InvalidRequest


def point(engine, **changes):
    sizes = {"phase": "decode", "num_chips": 64, "batch_size": 64, "input_len": 1984, "output_len": 64}
    return build_point(
        engine=engine, **{"model": "palm-540b", "hw": "tpu-v4", "weight_dtype": "int8", **sizes, **changes}
    )


ASKED = [
    point("analytic"),
    point("analytic", phase="generate", mesh_shape=(4, 4, 4), ffn_layout="ws_2d"),
    point("analytic", hw="a100-80gb", num_chips=16, batch_size=4, tensor_parallel=8),
    point("analytic", batch_size=1 << 20),
    point("published"),
    point("published", batch_size=63),
]


def answered(of):
    engine = make_engine(load_group("engine", of.engine))
    question = PointTask(
        point=of,
        point_id=point_id(engine, of),
        code_id=code_id_of(engine, code_id(engine), of),
        source=engine.source,
        sweep="a sweep",
    )
    return answer(engine, question, TimingConfig())


def old(row, number=0):
    """The row as version 1 had it."""
    return replace(row, schema_version=1, point_id=f"old {number}", program_id=None, code_id=None, git_sha="before")


def write(store, *rows):
    for row in rows:
        store.append([row])


def keys(row):
    return row.point_id, row.program_id, row.code_id


def test_a_row_that_is_answered_alike_gets_its_keys_and_keeps_all_else(tmp_path):
    store, now = Store(tmp_path), [answered(of) for of in ASKED]
    assert {row.status for row in now} == {"ok", "oom", "unsupported"}
    before = [old(row, number) for number, row in enumerate(now)]
    write(store, *before)
    parts = {part.name for part in store.parts()}
    found = rekey(store, {})
    assert (found.rows, found.rekeyed, found.dropped) == (len(ASKED), len(ASKED), [])
    after = store.load()
    for was, row, fresh in zip(before, after, now, strict=True):
        assert keys(row) == keys(fresh)
        assert replace(row, schema_version=1, point_id=was.point_id, program_id=None, code_id=None) == was
    assert {path.name for path in (tmp_path / subject.ASIDE).iterdir()} == parts
    assert len(store.parts()) == 1
    assert rekey(store, {}).rekeyed == 0


@pytest.mark.parametrize("of", ASKED)
def test_the_point_of_a_row_is_the_one_that_was_asked(of):
    assert requested_point(answered(of)) == of


def test_a_row_that_is_answered_otherwise_is_dropped_with_a_word(tmp_path):
    store, now = Store(tmp_path), answered(ASKED[0])
    slower = replace(old(now, 1), latency_s=now.latency_s * (1 + 1e-9))
    gone = replace(old(now, 2), model="palm-541b")
    write(store, old(now), slower, gone, replace(old(now, 3), status="oom"))
    found = rekey(store, {})
    assert found.rows == found.rekeyed == 1
    told = {row.point_id: why for row, why in found.dropped}
    assert told["old 1"].startswith("latency_s=")
    assert "palm-541b" in told["old 2"]
    assert "status=oom, and now ok" in told["old 3"]


def test_a_crash_in_the_middle_loses_nothing_and_is_put_right_by_another_run(tmp_path, monkeypatch):
    store = Store(tmp_path)
    write(store, *(old(answered(of), number) for number, of in enumerate(ASKED[:2])))

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(subject, "_move_aside", crash)
        with pytest.raises(KeyboardInterrupt):
            rekey(store, {})
    assert {row.schema_version for row in store.load()} == {1, 2}
    rekey(store, {})
    assert [keys(row) for row in store.load()] == [keys(answered(of)) for of in ASKED[:2]]


def test_a_measured_row_needs_a_proof(tmp_path):
    sizes = {"num_chips": 1, "batch_size": 2, "input_len": 4, "output_len": 0}
    of = point("torch", model="tiny", hw="cpu", phase="prefill", weight_dtype="float32", **sizes)
    engine = make_engine(load_group("engine", "torch"))
    details, versions = {"seed": 0, "decode": "eager"}, answered(ASKED[0]).versions
    row = old(a_row(**of.axes(), source="measured", status="ok", details=details, versions=versions))
    later, store = replace(row, versions={**row.versions, "torch": "1.0"}, point_id="other"), Store(tmp_path)
    write(store, row, later, replace(row, point_id="unproven"))
    found = rekey(store, {row.point_id: True, "other": True})
    assert [why.partition(",")[0] for _, why in found.dropped] == ["made with torch 1.0", "measured"]
    (kept,) = store.load()
    assert keys(kept) == (point_id(engine, of), program_id(engine, of), code_id(engine))


def test_imported_rows_and_those_of_today_stay_as_they_are(tmp_path):
    store, today = Store(tmp_path), answered(ASKED[1])
    imported = replace(old(answered(ASKED[4])), engine="imported")
    write(store, imported, today, old(answered(ASKED[0])))
    rekey(store, {})
    assert {imported.point_id, today.point_id} <= {row.point_id for row in store.load()}


def test_the_command_says_what_it_dropped(tmp_path, capsys):
    store = Store(tmp_path / "rows of")
    write(store, old(a_row(point_id="measured")), old(answered(ASKED[0]), 1))
    assert main(["results", "rekey", f"results_dir={store.results_dir}", "print=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["rekeyed"], len(found["dropped"]), len(found["moved_to"])) == (1, 1, 1, 2)
    assert "proven=FILE" in found["dropped"][0]["reason"]
    assert main(["results", "rekey", f"results_dir={store.results_dir}"]) == 0
    assert "0 rows got new keys" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}'])
def test_a_proof_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "proven.json"
    path.write_text(content)
    with pytest.raises(InvalidRequest, match="proven="):
        subject.read_proven(path)

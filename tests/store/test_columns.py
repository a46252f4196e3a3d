"""A store looked through by its columns gives the rows that reading every line gives."""

import pytest
from builders.rows import a_row
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.api.frame import load
from bench.rows import select as subject
from bench.rows.columns import Columns, counted_rows, plain_fields
from bench.rows.repair import compact
from bench.rows.select import Selection, frame, select
from bench.rows.standing import standing_rows
from bench.rows.store import Store, frame_of, line_of
from engines.core.errors import InvalidRequest, ShardbenchError

pytest.importorskip("pyarrow")


@pytest.fixture(autouse=True)
def many_rows(monkeypatch, tmp_path):
    """Two rows are many here, so that fragments are made; the cache is the test's own."""
    monkeypatch.setattr(subject, "MANY_ROWS", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


moments = st.sampled_from(
    [f"2026-01-0{day}T03:04:05.006+00:00" for day in range(1, 4)] + ["", "2026-01-02T04:00:00+02:00"]
)
rows = st.builds(
    a_row,
    point_id=st.sampled_from("abc"),
    program_id=st.sampled_from([None, "one", "two"]),
    status=st.sampled_from(["ok", "oom", "failed", "timeout", "unsupported"]),
    valid=st.booleans(),
    model=st.sampled_from(["tiny", "palm-8b"]),
    sweep=st.sampled_from([None, "None", "night"]),
    batch_size=st.integers(1, 3),
    latency_s=st.sampled_from([None, 1, 2.5]),
    created_at=moments,
    claim=st.sampled_from([None, "x.0", "x.1", "y.0", "no claim"]),
    mesh_shape=st.sampled_from([None, [2, 2, 2]]),
)
wanted = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sets(st.sampled_from(["tiny", "palm-8b", "other"]), min_size=1),
        "sweep": st.sets(st.sampled_from(["None", "night"]), min_size=1),
        "status": st.sets(st.sampled_from(["ok", "failed"]), min_size=1),
        "batch_size": st.sets(st.sampled_from(["1", "3"]), min_size=1),
        "latency_s": st.sets(st.sampled_from(["None", "2.5", "1.0"]), min_size=1),
        "valid": st.sets(st.sampled_from(["True", "False"]), min_size=1),
    },
)


def by_lines(store, where, *, history):
    found = store.load() if history else standing_rows(store.load()).values()
    # A float that a line holds without a fraction is one in a column.
    return [
        row
        for row in found
        if all(
            str(
                float(value)
                if name == "latency_s" and (value := getattr(row, name)) is not None
                else getattr(row, name)
            )
            in values
            for name, values in where.items()
        )
    ]


@settings(max_examples=15)
@given(
    parts=st.lists(st.lists(rows, min_size=1, max_size=5), min_size=1, max_size=4), where=wanted, history=st.booleans()
)
def test_columns_choose_what_lines_do(tmp_path_factory, parts, where, history):
    """Whatever their times and claims, over several fragments, and with lines that are there twice."""
    store = Store(tmp_path_factory.mktemp("store"))
    for part in parts:
        store.append(part)
        if len(part) > 2:
            select(store, {}, history=True)  # makes a fragment
    store.write_part([line_of(parts[0][0])])
    expected = by_lines(store, where, history=history)
    assert select(store, where, history=history) == expected
    names = ["point_id", "batch_size", "latency_s", "valid", "sweep", "created_at"]
    found = frame(store, names, where, history=history)
    assert found.equals(frame_of(expected)[names].reset_index(drop=True))
    ids = {"a", "c"}
    assert Selection(store).of_points(ids) == [row for row in store.load() if row.point_id in ids]


def test_a_fragment_is_made_once_and_read_after_that(tmp_path, monkeypatch):
    store = Store(tmp_path / "results")
    store.append([a_row(point_id="a"), a_row(point_id="b", model="palm-8b")])
    select(store, {})
    (fragment,) = Columns(store).folder.iterdir()
    read = []
    monkeypatch.setattr("bench.rows.columns.upgrade", lambda row: read.append(row.point_id) or row)
    assert len(select(store, {"model": ["palm-8b"]})) == 1
    assert read == ["b"]  # the line of what was chosen, and no other
    assert list(Columns(store).folder.iterdir()) == [fragment]
    assert len(frame(store, ["model"])) == 2
    assert read == ["b"]


def test_rows_of_after_the_fragment_count_and_few_make_none(tmp_path, monkeypatch):
    store = Store(tmp_path / "results")
    store.append([a_row(point_id=each) for each in "abcd"])
    monkeypatch.setattr(subject, "MANY_ROWS", 3)
    select(store, {})
    store.append([a_row(point_id="e")])
    assert [row.point_id for row in select(store, {})] == list("abcde")
    assert len(list(Columns(store).folder.iterdir())) == 1


def test_a_compacted_store_has_new_fragments(tmp_path):
    store = Store(tmp_path / "results")
    for each in "abc":
        store.append([a_row(point_id=each), a_row(point_id=each, model="palm-8b")])
        select(store, {})
    before = {path.name for path in Columns(store).folder.iterdir()}
    compact(store)
    assert len(select(store, {}, history=True)) == 6
    after = {path.name for path in Columns(store).folder.iterdir()}
    assert len(after) == 1
    assert not before & after


def test_another_version_of_the_code_makes_them_anew(tmp_path, monkeypatch):
    store = Store(tmp_path / "results")
    store.append([a_row(point_id=each) for each in "ab"])
    select(store, {})
    (before,) = Columns(store).folder.iterdir()
    monkeypatch.setattr("bench.rows.columns.PACKAGES", ("bench/rows",))
    select(store, {})
    (after,) = Columns(store).folder.iterdir()
    assert before != after


def test_a_broken_line_is_named_and_a_changed_one_is_not_taken(tmp_path):
    store = Store(tmp_path / "results")
    part = store.append([a_row(point_id=each) for each in "ab"])
    select(store, {})
    text = part.read_text()
    part.write_text(text.replace('"batch_size": 4', '"batch_size": 5', 1))
    with pytest.raises(ShardbenchError, match="has changed since it was written; shardbench results check repair=true"):
        select(store, {})
    broken = Store(tmp_path / "broken")
    part = broken.append([a_row(point_id=each) for each in "ab"])
    part.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(ShardbenchError, match="has 1 of its 2 rows"):
        select(broken, {})


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    store = Store(tmp_path / "results")
    store.append([a_row(point_id=each) for each in "ab"])
    assert [row.point_id for row in select(store, {})] == ["a", "b"]


def test_what_others_store_later_is_new_to_who_looked_by_columns(tmp_path):
    store, other = Store(tmp_path / "results"), Store(tmp_path / "results")
    store.append([a_row(point_id=each) for each in "ab"])
    Selection(store).of_points({"a"})
    assert store.rows_of_others() == []
    other.append([a_row(point_id="c")])
    assert [row.point_id for row in store.rows_of_others()] == ["c"]


def test_the_newest_rows_of_an_engine(tmp_path, monkeypatch):
    store = Store(tmp_path / "results")
    times = [1.0, None, 3.0, 4.0]
    store.append([a_row(point_id=str(number), took_s=took_s) for number, took_s in enumerate(times)])
    store.append([a_row(engine="torch", took_s=9.0)])
    found = [row.took_s for row in Selection(store).newest("jax", "took_s", 2)]
    monkeypatch.setattr(subject, "MANY_ROWS", 100)
    assert found == [row.took_s for row in Selection(store).newest("jax", "took_s", 2)] == [3.0, 4.0]


def test_a_notebook_asks_for_columns(tmp_path):
    store = Store(tmp_path / "results")
    store.append([a_row(point_id="a", latency_s=2.0), a_row(point_id="b", model="palm-8b")])
    found = load(tmp_path / "results", columns=["model", "latency_s"], where={"model": "tiny"})
    assert found["latency_s"].tolist() == [2.0]
    assert found.attrs["units"]["latency_s"] == "s"
    assert len(load(tmp_path / "results", where={"model": ["tiny", "palm-8b"]})) == 2
    with pytest.raises(InvalidRequest, match="columns=speed: is no field of a row"):
        load(tmp_path / "results", columns=["speed"])


def test_plain_fields_are_what_a_column_can_hold():
    assert plain_fields()["latency_s"] is float
    assert not {"details", "mesh_shape", "samples_s"} & plain_fields().keys()


def test_a_file_that_somebody_made_by_hand_has_no_number(tmp_path):
    store = Store(tmp_path / "results")
    part = store.append([a_row(point_id=each) for each in "ab"])
    assert counted_rows(part) == 2
    assert counted_rows(part.with_name("mine.jsonl")) is None

"""Which row stands for a point: a crash hides no measurement, noise no quiet one, and no program another's answer."""

import itertools

import hypothesis.strategies as st
import pytest
from builders.rows import a_row
from hypothesis import given

from bench.rows.standing import standing, standing_rows
from bench.rows.store import Store

KINDS = {
    "valid": {"status": "ok", "valid": True, "program_id": "one"},
    "invalid": {"status": "ok", "valid": False, "program_id": "one"},
    "other": {"status": "ok", "valid": False, "program_id": "two"},
    "oom": {"status": "oom", "program_id": "one"},
    "refused": {"status": "unsupported", "program_id": None},
    "failed": {"status": "failed", "program_id": None},
    "timeout": {"status": "timeout", "program_id": None},
}


def rows_of(*kinds):
    return [a_row(batch_size=number, **KINDS[kind]) for number, kind in enumerate(kinds, start=1)]


@pytest.mark.parametrize(
    ("kinds", "stands"),
    [
        (["valid", "failed"], 1),
        (["failed", "valid"], 2),
        (["invalid", "timeout"], 1),
        (["valid", "invalid"], 1),
        (["valid", "valid"], 2),
        (["invalid", "invalid"], 2),
        (["valid", "refused", "failed"], 1),
        (["refused", "failed"], 1),
        (["failed", "timeout"], 2),
        (["valid", "oom"], 1),
        # What ran before hides nothing of what runs now.
        (["valid", "other"], 2),
        (["valid", "other", "invalid"], 1),
        (["other", "oom"], 2),
    ],
)
def test_the_row_that_stands(kinds, stands):
    assert standing(rows_of(*kinds)).batch_size == stands


@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
def test_laws(kinds):
    rows = rows_of(*kinds)
    found = standing(rows)
    assert found in rows
    if {"valid", "invalid", "other"} & set(kinds):
        assert found.status in ("ok", "oom")
    if {"valid", "invalid"} & set(kinds) and "oom" not in kinds:
        assert found.status == "ok"
    # A later failure changes nothing; a later valid row always stands.
    assert standing([*rows, a_row(**KINDS["failed"])]) is found or set(kinds) <= {"failed", "timeout"}
    last = a_row(**KINDS["valid"])
    assert standing([*rows, last]) is last


def test_each_point_has_its_own():
    rows = [a_row(point_id=key, status=status) for key, status in itertools.product("ab", ("ok", "failed"))]
    assert {key: row.status for key, row in standing_rows(rows).items()} == {"a": "ok", "b": "ok"}


def test_a_measurement_beats_a_failure_that_came_later(tmp_path):
    store = Store(tmp_path)
    store.append([a_row(valid=True)])
    store.append([a_row(status="failed", error="killed", created_at="2026-01-02T04:00:00.000+00:00")])
    assert [row.status for row in store.latest().values()] == ["ok"]
    assert len(store.load()) == 2

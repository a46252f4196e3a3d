"""A stored row is the answer as long as what would run is the same, whatever its code is called."""

import json

import pytest
from processes import gone

from bench.run import resume

pytestmark = pytest.mark.slow

SIZES = [1, 2, 3]


def asked(shardbench):
    """(pid, batch size) of every point whose program was asked for."""
    log = shardbench.log.with_name("asked")
    return [tuple(map(int, line.split())) for line in log.read_text().splitlines()] if log.exists() else []


def sizes(pairs):
    return [size for _, size in pairs]


@pytest.fixture
def rerun(shardbench, monkeypatch, capsys):
    """Runs the sizes with a program of that name; returns what was started and what was asked for meanwhile."""

    def call(program, *words, of=SIZES, code=0):
        if program is not None:
            shardbench.log.with_name("program").write_text(program)
        before = len(shardbench.executed()), len(asked(shardbench))
        asked_for = shardbench.scripted(f"batch_size={of}".replace(" ", ""), "print=json", *words)
        assert shardbench.here(monkeypatch, *asked_for) == code
        started = sizes(shardbench.executed()[before[0] :]), sizes(asked(shardbench)[before[1] :])
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()], *started

    return call


def test_rows_of_the_same_program_are_kept_and_of_another_measured_anew(shardbench, rerun):
    first, started, _ = rerun("one")
    assert started == SIZES
    kept, started, found = rerun("one")
    assert (started, found) == ([], SIZES)
    assert kept == first
    changed, started, _ = rerun("other")
    assert started == SIZES
    assert [row["point_id"] for row in changed] == [row["point_id"] for row in first]
    assert not {row["program_id"] for row in changed} & {row["program_id"] for row in first}
    # Whoever goes back finds the old rows, though newer ones of the same points are there.
    back, started, _ = rerun("one")
    assert started == []
    assert back == first
    assert len(shardbench.stored()) == 2 * len(SIZES)


def test_while_the_code_stands_no_program_is_asked_for(shardbench, rerun):
    _, started, _ = rerun(None)
    kept, again, found = rerun(None)
    assert (started, again, found) == (SIZES, [], [])
    assert all(row["code_id"] for row in kept)


def test_only_points_that_changed_are_measured(shardbench, rerun):
    rerun("one", of=[1, 3])
    rows, started, _ = rerun("one", of=[1, 2, 3, 4])
    assert started == [2, 4]
    assert [row["batch_size"] for row in rows] == [1, 2, 3, 4]


def test_rows_that_say_nothing_of_their_program_are_measured_anew(shardbench, rerun):
    rerun("one", of=[1])
    (part,) = shardbench.results.glob("rows/*.jsonl")
    program = shardbench.stored()[0]["program_id"]
    part.write_text(part.read_text().replace(f'"{program}"', "null"))
    _, started, found = rerun("one", of=[1])
    assert (started, found) == ([1], [])


def test_an_engine_that_dies_while_it_is_asked_costs_that_point(shardbench, rerun):
    """Nothing is lost and nothing answered twice: the points before are kept, those after go on in a new process."""
    rerun("one", of=[1, 2, 115])
    rows, started, found = rerun("one", of=[1, 115, 2], code=3)
    assert [(row["batch_size"], row["status"]) for row in rows] == [(1, "ok"), (115, "failed"), (2, "ok")]
    assert (started, found) == ([], [1, 115, 2])
    assert all(gone(pid) for pid, _ in asked(shardbench))


def test_a_prediction_is_kept_through_changes_of_code_and_not_of_the_closed_form(shardbench, monkeypatch):
    words = ["run", "model=palm-540b", "hw=tpu-v4", "num_chips=64", "engine=analytic", "batch_size=[1,2]"]
    words += ["print=none", "wandb.mode=disabled"]

    def after(source, version):
        monkeypatch.setattr(resume, "code_id", lambda engine: source)
        monkeypatch.setattr("engines.analytic.engine.CLOSED_FORM_VERSION", version)
        assert shardbench.here(monkeypatch, *words) == 0
        return len(shardbench.stored())

    assert after("a source", 1) == 2
    assert after("a renamed source", 1) == 2
    assert after("another closed form", 2) == 4
    # While the source stands, so does what ran: it is not asked for.
    assert after("another closed form", 3) == 4

"""A stored row is the answer as long as what would run is the same, whatever its code is called."""

import json
import os
from dataclasses import replace

import pytest
from builders.points import point
from processes import gone

from bench.rows.store import Store
from bench.run import resume
from bench.run.environment import cpu_affinity
from bench.run.keys import code_id_of, point_id
from bench.run.load_engine import make_engine
from bench.sweep.catalog import load_group
from engines.core.chip import LinkConstants

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


def test_a_point_is_measured_again_under_other_conditions_and_not_under_the_same(shardbench, rerun, monkeypatch):
    first, started, _ = rerun(None, of=[1])
    assert started == [1]
    for words in ([], ["engine.tolerance.float32=0.5"], ["timing.max_samples=50"], ["+engine.pause_s=0.002"]):
        assert rerun(None, *words, of=[1])[1] == ([1] if words else [])
        assert rerun(None, *words, of=[1])[1] == []
    for name, value in (("OMP_NUM_THREADS", "1"), ("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            rows, started, _ = rerun("one", of=[1])
            assert started == [1]
            assert rerun("one", of=[1])[0] == rows
            assert value in (rows[0]["xla_flags"], rows[0]["conditions"]["variables"].get(name))
    shardbench.log.with_name("program").unlink()
    assert rerun(None, of=[1])[0] == first


@pytest.mark.skipif(len(cpu_affinity()) < 2, reason="one core cannot be fewer")
def test_a_point_is_measured_again_on_other_cores(shardbench, rerun):
    (whole,), _, _ = rerun(None, of=[1])
    cores = cpu_affinity()
    assert whole["cpu_affinity"] == cores
    os.sched_setaffinity(0, cores[:1])
    try:
        (one,), started, _ = rerun(None, of=[1])
        assert (started, one["cpu_affinity"]) == ([1], cores[:1])
        assert rerun(None, of=[1])[1] == []
    finally:
        os.sched_setaffinity(0, cores)
    assert rerun(None, of=[1])[0] == [whole]


def test_a_row_whose_clock_ran_ahead_does_not_win_for_ever(shardbench, rerun):
    rerun(None, of=[1])
    (part,) = shardbench.results.glob("rows/*.jsonl")
    ahead = "2999-01-01T00:00:00.000+00:00"
    part.write_text(part.read_text().replace(shardbench.stored()[0]["created_at"], ahead))
    part.rename(part.with_name(f"29990101T000000000000{part.name[21:]}"))
    (again,), started, _ = rerun(None, "resume=false", of=[1])
    assert started == [1]
    (newest,) = Store(shardbench.results).latest().values()
    assert newest.created_at == again["created_at"] < ahead


def test_a_chip_that_tells_its_compiler_something_else_is_asked_again():
    """The constants of a chip's links are in no point_id; nor may the same source then pass for the same program.

    A prediction takes none of them.
    """
    sizes = {"engine": "compiled", "phase": "decode", "num_chips": 8, "batch_size": 8, "input_len": 8, "output_len": 8}
    engine, asked = make_engine(load_group("engine", "compiled")), point(model="palm-8b", hw="tpu-v4", **sizes)
    links = LinkConstants(link_efficiency=0.5, hop_s=1e-6, launch_s=1e-6)
    other = replace(asked, chip=replace(asked.chip, link_constants=links))
    assert point_id(engine, asked) == point_id(engine, other)
    assert code_id_of(engine, "code", asked) != code_id_of(engine, "code", other)
    assert code_id_of(engine, "code", asked) == code_id_of(engine, "code", replace(asked, batch_size=9))
    assert code_id_of(engine, None, asked) is None
    analytic = make_engine(load_group("engine", "analytic"))
    assert code_id_of(analytic, "code", other) == code_id_of(analytic, "code", asked)


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

"""The command that the site gives for a row asks the same point: its words compose to the row's point_id."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from builders.rows import a_row

from bench.rows.store import Store
from bench.run.again import command, requested_point, settings, words
from bench.run.keys import point_id
from bench.run.load_engine import make_engine
from bench.sweep.catalog import load_group
from bench.sweep.composer import Composer
from bench.sweep.overrides import in_grammar
from bench.sweep.requests import requests_of
from engines.core.errors import ShardbenchError

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def stored():
    return [row for name in ("reference", "architectures", "studies") for row in Store(RESULTS / name).load()]


def kinds(rows):
    """Rows of which each has a key, or a setting of its engine, that none before it has in its engine and phase."""
    seen, found = set(), []
    for row in rows:
        keys = [word if word.startswith("engine") else word.partition("=")[0] for word in words(row)]
        new = {(row.engine, row.phase, key) for key in keys} - seen
        if new:
            seen |= new
            found.append(row)
    return found


def test_commands_of_stored_rows_ask_their_points(stored):
    chosen = kinds(stored)
    assert len(chosen) > 20
    engines, wrong = {}, []
    with Composer().ready() as composer:
        for row in chosen:
            program, verb, *arguments = shlex.split(command(row)["command"])
            assert (program, verb) == ("shardbench", "run")
            (request,) = requests_of(composer, in_grammar(arguments, multirun=False))
            (job,) = request.jobs
            (point,) = job.points
            key = json.dumps(job.engine_config, default=str)
            if key not in engines:
                engines[key] = make_engine(job.engine_config)
            if point_id(engines[key], point) != row.point_id:
                wrong.append(command(row))
    assert wrong == []


def test_a_row_says_its_point_and_the_settings_of_its_engine(stored):
    engines, wrong = {}, []
    for row in stored[::29]:
        key = json.dumps([row.engine, settings(row)])
        if key not in engines:
            engines[key] = make_engine(load_group("engine", row.engine) | settings(row))
        if point_id(engines[key], requested_point(row)) != row.point_id:
            wrong.append(words(row))
    assert wrong == []


@pytest.mark.parametrize(
    "row",
    [
        a_row(engine="imported"),
        a_row(phase="program"),
        a_row(engine="somebody's own"),
        a_row(details={"checkpoint": "0123"}),
    ],
    ids=["imported", "program", "unknown engine", "checkpoint"],
)
def test_a_row_without_such_a_command_says_why(row):
    with pytest.raises(ShardbenchError):
        words(row)
    assert set(command(row)) == {"no_command"}


def test_what_the_engine_chose_is_left_to_it_and_a_shell_reads_the_rest():
    row = a_row(ffn_layout="ws_2d", chosen=["ffn_layout"], mesh_shape=[2, 2, 2], model="tiny+num_layers=2")
    typed = command(row)["command"]
    assert "ffn_layout" not in typed
    assert {"mesh_shape=[2,2,2]", "model=tiny", "model.num_layers=2"} <= set(shlex.split(typed))
    hostile = replace(row, model="x'; rm -rf / #")
    assert shlex.split(command(hostile)["command"])[2] == f"model={hostile.model}"
    assert json.dumps(command(hostile))

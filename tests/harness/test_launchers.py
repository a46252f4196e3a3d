"""Jobs of launchers and sweepers that are not Hydra's own: they run where they are launched, and none is lost."""

import json
import math
import os
from pathlib import Path

import pytest

from bench.run.launched import objective

PLUGINS = Path(__file__).parent / "plugins"
LAUNCHED = ("-m", "hydra/launcher=other_process", "wandb.mode=disabled")

pytestmark = pytest.mark.slow


@pytest.fixture
def launched(shardbench):
    def call(*words, code=0):
        path = os.pathsep.join([str(PLUGINS), shardbench.env["PYTHONPATH"]])
        return shardbench("run", *LAUNCHED, *words, env={"PYTHONPATH": path}, code=code)

    return call


def test_every_job_stores_its_rows_and_the_command_prints_them(shardbench, launched):
    done = launched("model=[palm-8b,palm-62b],tiny", "batch_size=1,2", "print=json")
    asked = {(model, batch) for model in ("palm-8b", "palm-62b", "tiny") for batch in (1, 2)}
    assert sorted((row["model"], row["batch_size"]) for row in shardbench.rows(done)) == sorted(asked)
    assert {(row["model"], row["batch_size"]) for row in shardbench.stored()} == asked
    assert "4 jobs launched with hydra/launcher=other_process" in done.stderr


def test_recipes_and_their_settings_reach_the_jobs(shardbench, launched):
    launched("sweep=[paper-table2,published],study-1d-2d", "engine=analytic", "print=none")
    assert {row["sweep"] for row in shardbench.stored()} == {"paper-table2", "published", "study-1d-2d"}


def test_a_job_that_dies_is_named_and_fails_the_command(shardbench, launched):
    done = launched("sweep_name=lives,dies", "print=json", code=3)
    assert "the job print=json sweep_name='dies' wandb.mode=disabled ended without a report" in done.stderr
    assert [row["sweep"] for row in shardbench.stored()] == ["lives"]


def test_a_job_that_is_invalid_is_refused_before_any_is_launched(shardbench, launched):
    done = launched("batch_size=1,-2", code=2)
    assert "batch_size=-2" in done.stderr
    assert not shardbench.results.exists()


def test_a_point_that_fails_in_a_job_fails_the_command(shardbench):
    path = os.pathsep.join([str(PLUGINS), shardbench.env["PYTHONPATH"]])
    words = shardbench.scripted(*LAUNCHED, "batch_size=1,106", "print=json")
    done = shardbench(*words, env={"PYTHONPATH": path}, code=3)
    assert sorted((row["batch_size"], row["status"]) for row in shardbench.rows(done)) == [(1, "ok"), (106, "failed")]


def test_a_sweeper_gets_the_latency_of_its_point(shardbench, launched):
    launched("hydra/sweeper=smallest", "batch_size=1,256,4096", "model=palm-540b", "num_chips=8", "print=none")
    tried = json.loads((shardbench.folder / "tried.json").read_text())
    stored = {str(row["batch_size"]): row for row in shardbench.stored()}
    assert tried.keys() == stored.keys()
    for batch, seconds in tried.items():
        assert seconds == (stored[batch]["latency_s"] if stored[batch]["status"] == "ok" else math.inf)


def test_a_plugin_that_cannot_be_loaded_is_a_sentence(shardbench, launched):
    done = launched("hydra/launcher=gone", "batch_size=1,2", code=2)
    assert "hydra/launcher=gone: cannot be loaded by Hydra" in done.stderr.splitlines()[-1]


def test_no_rows_or_a_row_without_time_are_no_small_objective():
    assert objective([]) == math.inf

"""Recipes ask what was published: all of it, or some tables, each row of its own runtime."""

from functools import cache

import pytest
from omegaconf import OmegaConf

from bench.sweep import expand
from bench.sweep.catalog import conf_dir, load_group
from engines.core.errors import InvalidRequest
from engines.published.table import TIMED_FILES, published_rows, rows_in, tables

named = cache(load_group)


def asked(points):
    content = {group: load_group(group, name) for group, name in (("model", "palm-540b"), ("hw", "tpu-v4"))}
    content |= {group: load_group(group, "default") for group in ("timing", "wandb")}
    content |= {"price": load_group("price", "none")}
    content |= {"engine": load_group("engine", "analytic"), "runtime": load_group("runtime", "auto")}
    config = {**OmegaConf.to_container(OmegaConf.load(conf_dir() / "config.yaml")), **content, "points": points}
    return {job.engine: list(job.points) for job in expand.request_from(config, named=named).jobs}


def recipe(name):
    return OmegaConf.to_container(OmegaConf.load(conf_dir() / f"sweep/{name}.yaml"))["points"]


def questions(rows):
    return {tuple(sorted(row.stated.items())) for row in rows}


def test_all_that_was_published_is_asked_of_both_engines_once():
    found = asked(recipe("published"))
    assert found.keys() == {"published", "analytic"}
    for points in found.values():
        assert len(points) == len(questions(published_rows()))
        assert {point.runtime.name for point in points} == {row.stated["runtime"] for row in published_rows()}


def test_todays_recipe_asks_every_table_that_is_not_of_2022():
    [entry] = recipe("today")
    older = ("paper", "fastertransformer", "megatron")
    assert entry["from"] == [name for name in tables() if not name.startswith(older)]
    rows = [row for name in TIMED_FILES if not name.startswith(older) for row in rows_in(name)]
    assert len(asked(recipe("today"))["analytic"]) == len(questions(rows)) > 150


@pytest.mark.parametrize("name", tables())
def test_a_table_by_name_is_its_rows(name):
    points = asked([{"from": name}])["analytic"]
    rows = rows_in(tables()[name].name)
    assert len(points) == len(rows)
    assert [point.runtime.name for point in points] == [row.stated["runtime"] for row in rows]


def test_a_key_beside_it_holds_for_every_row():
    points = asked([{"from": ["gpt-fast", "maxtext"], "runtime": "best"}])["analytic"]
    assert len(points) == 26
    assert {point.runtime.name for point in points} == {"best"}


def test_an_unknown_table_is_refused_with_the_names_of_all():
    with pytest.raises(InvalidRequest, match=r"points.from=gpt-slow: is not known; use published, or paper-table2, "):
        asked([{"from": ["gpt-fast", "gpt-slow"]}])

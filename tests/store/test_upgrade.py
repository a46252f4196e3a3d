"""Rows that earlier versions stored are read as what they were."""

import json
from dataclasses import replace

import pytest
from builders.points import point
from builders.rows import a_row

from bench.compare.verdicts import question
from bench.rows.store import Store
from bench.rows.upgrade import upgrade
from bench.run.make_row import PointTask, estimated
from engines.published.engine import PublishedEngine
from engines.published.table import published_rows


@pytest.mark.parametrize(
    ("hw", "phase", "first_token", "chosen"),
    [
        ("a100-80gb", "generate", "prefill", []),
        ("h100-80gb+hbm_bytes=1e11", "generate", "prefill", []),
        ("tpu-v4", "generate", "decode", ["first_token"]),
        ("cpu", "generate", "decode", ["first_token"]),
        ("unheard-of", "generate", "decode", ["first_token"]),
        ("a100-80gb", "decode", None, []),
        ("a100-80gb", "prefill", None, []),
    ],
)
def test_a_row_without_a_first_token_ran_by_the_convention_of_its_chip(tmp_path, hw, phase, first_token, chosen):
    content = a_row(hw=hw, phase=phase).to_dict()
    del content["first_token"]
    store = Store(tmp_path)
    store.write_part([json.dumps(content)])
    [row] = store.load()
    assert (row.first_token, row.chosen) == (first_token, chosen)
    assert upgrade(row) == row


def test_a_published_row_that_was_stored_before_asks_what_the_same_row_asks_now():
    points = [point(engine="published", **row.stated) for row in published_rows()]
    for of, answer in zip(points, PublishedEngine().estimate(points), strict=True):
        now = estimated(PointTask(point=of, point_id="", source="published", sweep=None), answer)
        before = replace(now, first_token=None, chosen=[key for key in now.chosen if key != "first_token"])
        assert question(upgrade(before)) == question(now)

"""Rows that earlier versions stored are read as what they were."""

import json

import pytest
from a_row import a_row

from bench.rows.store import Store
from bench.rows.upgrade import upgrade


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

"""What is wrong with a plan's file, in one sentence each."""

import json
import re

import pytest

from bench.planner.shardings import read_shardings
from bench.sweep.catalog import load_model
from engines.core.errors import InvalidRequest
from engines.core.shardings import Shardings, sharded_values


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ({"residual": ["w", "x"]}, "residual:w.x: splits along w, which is no mesh axis; use x, y and z"),
        ({"residual": ["x", "xz"]}, "residual:x.xz: uses an axis twice"),
        ({"residual": "xy"}, "residual:'xy': is no list of axes"),
        ({"residual": [1, "x"]}, "is no list of axes"),
        ({"residual": ["x"]}, "residual:x: is no value of a layer"),
        ({"Residual": ["", ""]}, "is no value of a layer"),
        ({}, "names no values of a layer"),
        ([1, 2], "names no values of a layer"),
    ],
)
def test_what_a_file_says_wrongly_is_told(cuts, message, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"shardings": cuts}))
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        read_shardings(str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no JSON"), ("[]", 'has no key "shardings"'), (None, "cannot be read: No such file")],
)
def test_a_file_without_a_plan_is_told(text, message, tmp_path):
    file = tmp_path / "plan.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidRequest, match=f"{message}.*; write one with shardbench plan planner=alpa"):
        read_shardings(str(file))


def test_values_of_another_model_are_told():
    model = load_model("llama-3-8b")
    cuts = {name: ("",) * count for name, count in sharded_values(model).items()}
    for change, message in (
        ({"ffn.mid": ("", "")}, "ffn.mid: is no value of model=llama-3-8b; name attention, attn.columns"),
        ({"middle": ("", "", "x")}, "middle: has 3: model=llama-3-8b needs 2 dimensions of it"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            Shardings.of(cuts | change).check(model)
    del cuts["middle"]
    with pytest.raises(InvalidRequest, match="middle: is missing"):
        Shardings.of(cuts).check(model)

"""Points asked from Python get the rows of ``shardbench run``, and its sentences where it refuses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bench
from bench.api.words import words_of
from bench.cli.main import main
from bench.rows.store import Store
from bench.sweep.overrides import parsed

POINT = {"model": "palm-62b", "hw": "tpu-v4", "num_chips": 16, "engine": "analytic", "batch_size": 16}
RAN_NOW = {"created_at", "claim"}


def test_a_row_is_the_command_lines_row(tmp_path):
    row = bench.ask(POINT)
    words = [f"{key}={value}" for key, value in POINT.items()]
    assert main(["run", *words, f"results_dir={tmp_path}", "print=none", "wandb.mode=disabled"]) == 0
    (stored,) = Store(tmp_path).load()
    same = stored.to_dict().keys() - RAN_NOW
    assert {key: row.to_dict()[key] for key in same} == {key: stored.to_dict()[key] for key in same}


def test_nothing_is_kept_or_printed_unless_a_store_is_named(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    bench.ask(**POINT)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_store_keeps_the_row_and_answers_the_next_time(tmp_path):
    first, second = bench.ask(**POINT, results_dir=tmp_path / "s"), bench.ask({**POINT, "results_dir": tmp_path / "s"})
    assert first == second
    assert Store(tmp_path / "s").load() == [first]


def test_a_frame_has_the_points_in_the_order_asked():
    frame = bench.ask_all(**{**POINT, "batch_size": np.array([64, 1, 16])}, weight_dtype=("int8", "bfloat16"))
    assert list(zip(frame.batch_size, frame.weight_dtype, strict=True)) == [
        (size, dtype) for size in (64, 1, 16) for dtype in ("int8", "bfloat16")
    ]
    assert frame.latency_s.notna().all()


def test_points_are_listed_with_what_they_share():
    shared = {key: value for key, value in POINT.items() if key != "batch_size"}
    frame = bench.ask_all([{"batch_size": 4}, {"batch_size": [1, 2], "mesh_shape": (2, 2, 4)}], **shared)
    assert list(frame.batch_size) == [4, 1, 2]
    assert frame.mesh_shape[1] == [2, 2, 4]


def test_a_key_with_a_dot_changes_the_model():
    row = bench.ask({"model.num_layers": 8}, **POINT)
    assert row.model == "palm-62b+num_layers=8"


def test_prices_are_a_mapping_of_chips_or_keys_with_dots():
    for asked in ({"price": {"usd_per_chip_hour": {"tpu-v4": 3.6}}}, {"price.usd_per_chip_hour.tpu-v4": 3.6}):
        row = bench.ask(asked, **POINT)
        assert row.cost_usd_per_mtok == pytest.approx(row.cost_chip_s_per_token * 1e6 * 3.6 / 3600)
    with pytest.raises(bench.InvalidRequest, match="tpu-v4=-1: must be a number > 0"):
        bench.ask(price={"usd_per_chip_hour": {"tpu-v4": -1}}, **POINT)


def test_a_bad_point_among_good_ones_is_a_row_that_says_so():
    frame = bench.ask_all(**{**POINT, "num_chips": [16, 7]})
    assert list(frame.status) == ["ok", "unsupported"]
    assert "num_chips=7" in frame.error[1]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"batch": 16}, "batch=16: is not a key of shardbench run; did you mean batch_size="),
        ({"batch_size": [1, 2]}, "batch_size=[1,2]: asks 2 points; use bench.ask_all"),
        ({"mesh_shape": [2, 2, 4], "weight_dtype": ["int8", "int4"]}, "weight_dtype=[int8,int4]: asks 2 points"),
        ({"batch_size": "16"}, "batch_size=16: must be an integer ≥ 1"),
        ({"batch_size": 2.5}, "batch_size=2.5: must be an integer ≥ 1"),
        ({"batch_size": float("nan")}, "batch_size=nan: must be an integer ≥ 1"),
        ({"batch_size": object()}, "batch_size=object: is no value of a key"),
        ({"model": "palm-63b"}, "model=palm-63b: is not known; use palm-62b"),
        ({"model": 62}, "model=62: is not known"),
        ({"model": None}, "model=null: names no choice"),
        ({"model": "a,b"}, "model=a,b: is not known"),
        ({"ffn_layout": "]},'\"${x}"}, "ffn_layout="),
        ({"print": "json"}, "print=json: means nothing in Python"),
        ({"hydra.verbose": True}, "hydra.verbose=true: means nothing in Python"),
        ({"num_chips": 7}, "num_chips=7"),
        ({"config_dir": "no/such/folder"}, "no/such/folder: does not exist"),
    ],
)
def test_a_wrong_question_is_one_sentence(keys, sentence):
    with pytest.raises(bench.ShardbenchError) as raised:
        bench.ask({**POINT, **{key: value for key, value in keys.items() if key != "config_dir"}}, **_folder(keys))
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def _folder(keys):
    return {"config_dir": keys["config_dir"]} if "config_dir" in keys else {}


def test_a_key_twice_is_refused():
    with pytest.raises(bench.InvalidRequest, match="batch_size=2: is given twice"):
        bench.ask_all([{"batch_size": 1}], batch_size=2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True), inner)
    ),
    max_leaves=5,
)


@settings(max_examples=25)
@given(VALUES.filter(lambda value: not isinstance(value, str) or not value.startswith("~")))
def test_every_value_reaches_hydra_as_it_is(value):
    [word] = words_of("details", value)
    if "~" not in word:
        assert _plain(parsed(word).value()) == value


def _plain(value):
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return getattr(value, "text", value)


def test_a_home_folder_is_meant_by_a_tilde():
    assert str(Path.home()) in words_of("results_dir", "~/rows")[0]
    assert str(Path.home()) not in words_of("results_dir", "a~/rows")[0]


def test_importing_costs_nothing_and_offers_all():
    first = "import sys, bench; assert not [name for name in sys.modules if name.startswith(('engines', 'bench.'))]"
    then = "assert {'ask', 'load', 'plot'} <= set(dir(bench)); bench.estimate.estimate; bench.testing.before"
    subprocess.run([sys.executable, "-c", f"{first}; {then}"], check=True)
    with pytest.raises(AttributeError, match="no attribute 'pilot'"):
        bench.pilot  # noqa: B018
    assert all(getattr(bench, name) for name in bench.__all__)

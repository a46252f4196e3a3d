"""Which model and chip a file means: its own name, or the user's key, entry by entry."""

import json

import pytest
from builders.results_of_others import INFERENCEX, SERVE

from bench.cli.args import parse
from bench.cli.commands import import_
from bench.importers.choices import Choices
from bench.importers.known import Known
from bench.rows.store import Store
from engines.core.errors import InvalidRequest


def choose(group, named, **given):
    choices = Choices({"model": None, "hw": None, **given})
    return choices.choose(group, None if named is None else Known(named, f"file: {group}"), "f.json")


def test_a_name_that_is_a_choice_is_taken_and_may_not_be_contradicted():
    assert choose("model", "org/Llama-3-8B") == Known("llama-3-8b", "file: model")
    assert choose("hw", "NVIDIA H100 80GB HBM3") == Known("h100-80gb", "file: hw")
    assert choose("model", "llama-3-8b", model="llama-3-8b") == Known("llama-3-8b", "user: model")
    with pytest.raises(InvalidRequest, match=r"model=llama-3-70b: f\.json has llama-3-8b"):
        choose("model", "llama-3-8b", model="llama-3-70b")
    with pytest.raises(InvalidRequest, match=r"hw=a100-80gb: f\.json has h200"):
        choose("hw", "h200", hw="a100-80gb")


def test_a_name_that_is_none_is_the_user_s_if_it_can_be():
    assert choose("model", "acme/llama-8b-chat", model="llama-3-8b") == Known("llama-3-8b", "user: model")
    with pytest.raises(
        InvalidRequest, match=r"model=llama-3-70b: has 70\.6e9 parameters and f\.json has acme/llama-8b"
    ):
        choose("model", "acme/llama-8b", model="llama-3-70b")
    assert choose("hw", "h100-dgxc", hw="h100-80gb").value == "h100-80gb"
    with pytest.raises(InvalidRequest, match=r"hw=a100-80gb: f\.json has h100-dgxc; use hw=h100"):
        choose("hw", "h100-dgxc", hw="a100-80gb")
    with pytest.raises(InvalidRequest, match=r"model=: f\.json has acme/llama, which is not in conf/model"):
        choose("model", "acme/llama")
    with pytest.raises(InvalidRequest, match=r"model=: f\.json does not state it"):
        choose("model", None)


def test_a_mapping_may_be_typed():
    assert choose("model", "a/b", model="{a/b: llama-3-8b}").value == "llama-3-8b"
    for typed in ("{a/b", "{a/b: [llama-3-8b]}", "{}x"):
        with pytest.raises(InvalidRequest, match="is no mapping of names"):
            choose("model", "a/b", model=typed)


def test_one_key_stands_for_one_name(tmp_path):
    two = [{**INFERENCEX, "model": f"acme/chat-{name}"} for name in "ab"]
    path = tmp_path / "f.json"
    path.write_text(json.dumps(two), encoding="utf-8")

    def run(model):
        words = [f"data={path}", f"model={model}", f"results_dir={tmp_path / 'results'}"]
        _, settings = parse("import", words, import_.KEYS, import_.VERBS)
        return import_.main(None, settings)

    with pytest.raises(InvalidRequest, match=r"stands for acme/chat-a of .* entry 1, and .* entry 2 has acme/chat-b"):
        run("llama-3-70b")
    assert run("{acme/chat-a: llama-3-70b, acme/chat-b: llama-3-8b}") == 0
    rows = Store(tmp_path / "results").load()
    assert {row.details["model_name"]: row.model for row in rows} == {
        "acme/chat-a": "llama-3-70b",
        "acme/chat-b": "llama-3-8b",
    }


def test_an_mfu_above_one_is_not_valid_and_says_so(tmp_path):
    """A thousand times the throughput that an H100 has."""
    fast = {
        **SERVE,
        "duration": 0.05,
        "request_throughput": 2e3,
        "output_throughput": 4e5,
        "total_token_throughput": 2.4e6,
    }
    path = tmp_path / "f.json"
    path.write_text(json.dumps({**fast, "median_e2el_ms": None}), encoding="utf-8")
    words = [f"data={path}", "model=llama-3-8b", "hw=h100-80gb", "num_chips=1", "weight_dtype=bfloat16"]
    _, settings = parse("import", [*words, f"results_dir={tmp_path / 'results'}"], import_.KEYS, import_.VERBS)
    assert import_.main(None, settings) == 0
    [row] = Store(tmp_path / "results").load()
    assert row.mfu == pytest.approx(2.4e6 * 2 * 8.03e9 / 989.4e12, rel=0.01)
    assert not row.valid
    assert "mfu=" in row.invalid_reason

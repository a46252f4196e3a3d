"""The law of importing: every number is stated by the file, stated by the user, or derived by a named rule.

Nothing is guessed, and no field of a file can change so that a wrong row comes of it silently.
"""

import copy
import json
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from builders.results_of_others import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli.args import parse
from bench.cli.commands import import_
from bench.importers.choices import Choices
from bench.importers.content import Content
from bench.importers.formats import FORMATS
from bench.importers.rules import sentence
from bench.importers.to_rows import rows_of
from engines.core.errors import ShardbenchError
from engines.core.row import Row

pytestmark = pytest.mark.slow(seconds=0.02)

NO_NUMBERS = ("schema_version",)
NOT_COMPARED = ("point_id", "created_at", "details", "origins", "system", "reference", "versions", "valid", "error")


def rows(name: str, content: dict[str, Any]) -> list[Row]:
    example = EXAMPLES[name]
    words = ["data=f.json", *example.words.split()]
    _, given_keys = parse("import", words, import_.KEYS, import_.VERBS)
    text = json.dumps(content, sort_keys=True, default=str)
    return rows_of(Content(Path("f.json"), text, content), given_keys, Choices(given_keys))


@cache
def original_rows(name: str) -> list[Row]:
    return rows(name, EXAMPLES[name].content)


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, dict):
        return [leaf for key, each in value.items() for leaf in leaves(each, (*path, key))]
    return [path]


def at(content: Any, path: tuple[str, ...]) -> Any:
    return content if not path else at(content[path[0]], path[1:])


def put(content: Any, path: tuple[str, ...], value: Any) -> Any:
    copied = copy.deepcopy(content)
    at(copied, path[:-1])[path[-1]] = value
    return copied


def without(content: Any, path: tuple[str, ...]) -> Any:
    copied = copy.deepcopy(content)
    del at(copied, path[:-1])[path[-1]]
    return copied


def mutations(value: Any) -> list[Any]:
    found: list[Any] = [None, [], {}, "another word", True, False, -1, 0, 1.5, [value, value]]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found += [value * 2, value * 1000, -value, str(value)]
    if isinstance(value, list):
        found += [value[:1], [each * 2 for each in value if isinstance(each, float)], [str(each) for each in value]]
    return found


ALL_LEAVES = [(name, path) for name, example in EXAMPLES.items() for path in leaves(example.content)]


def check_law(name: str, path: tuple[str, ...], content: dict[str, Any]) -> str:
    """Import a file in which one field changed; says which of the lawful outcomes came of it."""
    key = ".".join(path)
    after = rows_or_refusal(name, content)
    if isinstance(after, str):
        assert "\n" not in after
        return "refused"
    before = {(row.phase, row.input_len): row for row in original_rows(name)}
    outcome = "the same"
    for row in after:
        old = before.get((row.phase, row.input_len)) or next(iter(before.values()))
        differing = [
            each.name
            for each in fields(Row)
            if each.name not in NOT_COMPARED and getattr(row, each.name) != getattr(old, each.name)
        ]
        if not differing:
            assert is_seen(after, path, content, name), (
                f"{key} changed, and neither a figure nor the row's details tell"
            )
            continue
        outcome = "follows"
        assert any(follows(each, row, key) or follows(each, old, key) for each in differing), (key, differing)
        for each in differing:
            kin = [row.origins.get(each, ""), old.origins.get(each, "")]
            lawful = follows(each, row, key) or follows(each, old, key) or "rule: " in "".join(kin)
            lawful = lawful or (each == "invalid_reason" and not row.valid)
            assert lawful, f"{each} changed with {key}, and its origin is {kin}"
    return outcome


def follows(name: str, row: Row, key: str) -> bool:
    mine = [origin for each, origin in row.origins.items() if each == name or each.startswith(f"{name}.")]
    return any(key in origin for origin in mine)


def rows_or_refusal(name: str, content: dict[str, Any]) -> list[Row] | str:
    try:
        return rows(name, content)
    except ShardbenchError as refusal:
        return str(refusal)


def is_seen(found: list[Row], path: tuple[str, ...], content: Any, name: str) -> bool:
    """Whether a field that changed no figure of a row says nothing, or the rows tell of it.

    It says nothing where it is not there, is empty, or means what it did (``"inf"`` and infinity). They tell by its
    value in their details, by listing it as not mapped, or by a figure of another row that it is the origin of.
    """
    key = ".".join(path)
    try:
        value = at(content, path)
    except KeyError:
        return True
    if is_empty(value) or str(value).lower() == str(at_or_none(EXAMPLES[name].content, path)).lower():
        return True
    recorded = [each for row in found for each in (*row.details["kept"], *row.details["unmapped"])]
    named = [text for row in found for text in (row.details.get("model_name"), row.details.get("hw_name"))]
    return (
        any(each == key or each.startswith(f"{key}.") for each in recorded)
        or value in named
        or (len(found) > 1 and any(follows(each, row, key) for row in found for each in row.origins))
    )


def is_empty(value: Any) -> bool:
    """Whether there is nothing but nulls and empty lists in it."""
    return value in (None, []) or (isinstance(value, dict) and all(map(is_empty, value.values())))


def at_or_none(content: Any, path: tuple[str, ...]) -> Any:
    try:
        return at(content, path)
    except KeyError:
        return None


def test_there_is_an_example_of_every_format():
    assert {example.format for example in EXAMPLES.values()} == set(FORMATS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_number_of_a_row_has_an_origin(name):
    for row in rows(name, EXAMPLES[name].content):
        assert row.status == "ok"
        numbers = {
            each.name
            for each in fields(Row)
            if isinstance(getattr(row, each.name), (int, float)) and not isinstance(getattr(row, each.name), bool)
        } - set(NO_NUMBERS)
        zero_lengths = {each for each in ("batch_size", "input_len", "output_len") if getattr(row, each) == 0}
        assert numbers - zero_lengths <= row.origins.keys()
        assert {"model", "hw", "weight_dtype"} <= row.origins.keys()
        for origin in row.origins.values():
            kind, _, what = origin.partition(": ")
            assert kind in ("file", "user", "rule")
            if kind == "rule":
                assert sentence(what.partition(" of ")[0]).endswith(".")


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_nobody_stated_is_in_no_row(name):
    for row in rows(name, EXAMPLES[name].content):
        assert row.partitioner is None
        assert "partitioner" in row.details["unstated"]
        if "kv_dtype" not in row.origins:
            assert row.kv_dtype == ""
            assert "kv_dtype" in row.details["unstated"]
            assert row.mbu is None or row.phase == "prefill"


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_key_of_an_example_has_a_place(name):
    reciprocals = {"std_intvty", "p99_intvty"}
    for row in rows(name, EXAMPLES[name].content):
        assert set(row.details["unmapped"]) <= reciprocals


@pytest.mark.thorough(every=6)
@pytest.mark.parametrize(
    ("name", "path"), ALL_LEAVES, ids=lambda each: each if isinstance(each, str) else ".".join(each)
)
def test_a_changed_field_makes_no_wrong_row_silently(name, path):
    content = EXAMPLES[name].content
    check_law(name, path, without(content, path))
    for value in mutations(at(content, path)):
        check_law(name, path, put(content, path, value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(leaf=st.sampled_from(ALL_LEAVES), value=JSON)
def test_any_value_in_any_field_makes_no_wrong_row_silently(leaf, value):
    name, path = leaf
    check_law(name, path, put(EXAMPLES[name].content, path, value))


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(EXAMPLES)), key=st.text("abcdefgh_", min_size=3, max_size=9), value=JSON)
def test_a_key_that_no_format_has_is_listed_or_refused(name, key, value):
    content = {**EXAMPLES[name].content, f"x_{key}": value}
    found = rows_or_refusal(name, content)
    if isinstance(found, str):
        assert f"x_{key}" in found
    else:
        assert is_seen(found, (f"x_{key}",), content, name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("speculative_config", {"method": "eagle", "num_speculative_tokens": 3}),
        ("num_beams", 4),
        ("enable_prefix_caching", True),
        ("lora_name", "mine"),
        ("pipeline_parallel_size", 2),
        ("context_parallel_size", 2),
        ("quantization", "awq"),
        ("disaggregated_prefill", True),
        ("cpu_offload_gb", 20),
        ("best_of", 3),
    ],
)
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_key_that_would_change_the_meaning_is_refused_by_name(name, key, value):
    with pytest.raises(ShardbenchError, match=f"{key}.*=.* is |{key}.*samples"):
        rows(name, {**EXAMPLES[name].content, key: value})

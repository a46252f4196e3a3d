"""Every key of a config counts: it changes the model, is refused, or is known to change nothing."""

import copy
import itertools
import json
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from released_configs import READ, RELEASED, counted_besides, transformers_config, transformers_params

from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.config import same
from engines.weights.checkpoint.describe import describe, first_difference
from engines.weights.checkpoint.keys import FEATURES, OFF
from engines.weights.checkpoint.unused import UNUSED

pytestmark = pytest.mark.slow  # the file takes more than ten seconds

FAMILIES = {RELEASED[name]["config"]["model_type"]: name for name in READ}
"""One released model of each family that is read."""
SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    "num_kv_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 61,
    "rotary_dim": 4,
    "sliding_window": 8,
    "partial_rotary_factor": 0.5,
    "ffn_dim": 48,
    "word_embed_proj_dim": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "kv_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "first_k_dense_replace": 1,
    "query_pre_attn_scalar": 16,
    "n_group": 2,
    "topk_group": 1,
    "experts_per_token": 2,
    "layer_types": ["sliding_attention", "full_attention"],
}


def small(family):
    """A small config with every key of the released one."""
    content = copy.deepcopy(RELEASED[FAMILIES[family]]["config"])
    content |= {key: value for key, value in SIZES.items() if key in content}
    if "kv_lora_rank" in content:  # every head has keys of its own
        content["num_key_value_heads"] = content["num_attention_heads"]
    return {key: None if str(key).endswith("_token_id") else value for key, value in content.items()}


def answer(content):
    """The description, or the sentence with which the config is refused."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(content))
        try:
            return describe(Path(folder), "m")
        except InvalidRequest as error:
            return str(error)


def described(content):
    """The description, or None where the config is refused in one sentence."""
    found = answer(content)
    if isinstance(found, str):
        assert "\n" not in found
        assert len(found) < 1000
        return None
    return found


def others(value):
    """Other values of the kind of ``value``, and of other kinds."""
    found = [None, True, False, 1, 3, 64, 0.5, "other", [1, 2], {"a": 1}]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found += [value + 1, value * 2, -value]
    if isinstance(value, dict):
        found += [{**value, "factor": 3.0}, {**value, "surprise": 3}]
    return [each for each in found if not same(each, [value])]


def changes_nothing(key, value, before, after):
    """Whether that ``key`` is ``value`` is known to change nothing, so that the model may stay the same."""
    if key in after.unused or key in after.unknown or key in before.unused:
        return True
    return value is None or (key in FEATURES and same(value, FEATURES[key].off))


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("name", sorted(set(FAMILIES.values()) | {"llama-3.1-8b", "falcon-40b", "qwen2.5-7b", "phi-2"}))
def test_another_value_of_any_key_is_seen(name):
    content = RELEASED[name]["config"]
    before, seen = described(content), 0
    for key in content:
        for value in others(content[key]):
            after = described({**content, key: value})
            if after is None or first_difference(before.model, after.model) is not None:
                seen += 1
            elif not changes_nothing(key, value, before, after):
                # The same model: only where the value is what the key stood for, such as the whole head's rotation.
                without = described({each: kept for each, kept in content.items() if each != key})
                assert without is not None, (key, value)
                assert first_difference(without.model, before.model) is None, (key, value)
                assert same(value, OFF) or key == "auto_map", (key, value)
    assert seen > 40


@pytest.mark.parametrize("family", FAMILIES)
def test_a_key_that_is_left_out_is_a_key_that_is_null_or_refused(family):
    content = small(family)
    for key in content:
        without = described({each: value for each, value in content.items() if each != key})
        null = described({**content, key: None})
        if without is not None and null is not None:
            assert first_difference(without.model, null.model) is None, key


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_supported_is_refused_by_its_name(family):
    content, before = small(family), described(small(family))
    for key, value in itertools.product(FEATURES, (7, 0.25, "odd", {"a": 1}, [7], True)):
        after = described({**content, key: value})
        if after is None or first_difference(before.model, after.model) is not None:
            continue
        if changes_nothing(key, value, before, after) or same(content.get(key), [value]):
            continue
        # A key that the family reads, and its default: the opposite is another model.
        opposite = described({**content, key: False})
        assert opposite is None or first_difference(before.model, opposite.model) is not None, (key, value)


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    key=st.from_regex(r"[a-z][a-z_]{2,20}", fullmatch=True),
    value=st.one_of(st.integers(1, 9), st.floats(0.1, 9), st.just(True), st.text(min_size=1), st.just([1])),
)
@settings(max_examples=200, deadline=None)
def test_an_unknown_key_is_named(family, key, value):
    content = small(family)
    known = key in content or key in UNUSED or key in FEATURES
    if known or described({**content, key: None}) is None:
        return
    after = answer({**content, key: value})
    if isinstance(after, str):
        assert key in after
    else:  # a key that the family reads and its released config leaves out
        assert key not in after.unknown


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unknown_key_that_is_empty_is_listed(family):
    for value in OFF:
        assert described({**small(family), "some_new_key": value}).unknown == ("some_new_key",)
    assert described({**small(family), "some_new_key": None}).unknown == ()
    assert described({**small(family), "some_new_key": 1}) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.integers(-(10**400), 10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(family=st.sampled_from(sorted(FAMILIES)), data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_value_gives_a_finite_model_or_one_sentence(family, data):
    content = small(family)
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from([*content, *FEATURES, "layer_types", "rope_parameters"]) | st.text())
        content[key] = data.draw(json_values)
    found = described(content)
    if found is not None:
        assert 0 < found.model.published_params < float("inf")


@given(content=json_values)
@settings(max_examples=100, deadline=None)
def test_any_json_is_a_model_or_one_sentence(content):
    described(content)


@given(family=st.sampled_from(sorted(FAMILIES)), data=st.data())
@settings(max_examples=150, deadline=None)
def test_transformers_counts_what_we_count_of_any_config(family, data):
    content = small(family)
    for key in data.draw(st.lists(st.sampled_from(sorted(content)), max_size=4, unique=True)):
        value = content[key]
        if isinstance(value, bool):
            content[key] = data.draw(st.booleans())
        elif isinstance(value, int):
            content[key] = data.draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64, 96]))
    found = described(content)
    if found is None:
        return
    try:
        counted = transformers_params(content)
    except (ValueError, TypeError):  # transformers refuses what we count: a head that is not rotated in pairs, say
        return
    assert found.model.params + counted_besides(family, found.model) == counted


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("family", FAMILIES)
def test_keys_that_change_nothing_change_no_size_in_transformers(family):
    content = small(family)
    before = transformers_params(content)
    apart = {"num_labels", "id2label", "label2id", "problem_type", "attn_implementation"}
    # Those that begin so are private to the program that wrote them.
    keys = [key for key in sorted(UNUSED - apart) if not key.startswith("_")]

    def accepted(key, value):
        try:
            return transformers_config({**content, key: value}) is not None
        except Exception:
            return False

    for value in (True, 3, 0.5):
        groups = [[key for key in keys if accepted(key, value)]]
        while groups:
            group = groups.pop()
            try:
                counted = transformers_params({**content, **dict.fromkeys(group, value)})
            except Exception:  # transformers refuses the value of one of them: the others are asked apart from it
                if len(group) > 1:
                    groups += [group[: len(group) // 2], group[len(group) // 2 :]]
                continue
            assert counted == before, (group, value)

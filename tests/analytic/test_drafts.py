"""Speculative decoding predicted: the passes that propose and verify, and what both models hold."""

from dataclasses import replace
from functools import partial

import pytest
from builders.points import point as build_point

from bench.sweep.catalog import load_model
from engines.analytic.engine import AnalyticEngine
from engines.core.speculation import turns_until

LLAMA = partial(
    build_point,
    model="llama-3-70b",
    hw="h100-80gb",
    engine="analytic",
    phase="decode",
    num_chips=8,
    batch_size=1,
    input_len=1024,
    output_len=64,
)
PALM = partial(LLAMA, model="palm-540b", hw="tpu-v4", num_chips=64, batch_size=16, weight_dtype="int8")


def answer(point):
    (found,) = AnalyticEngine().estimate([point])
    return found


@pytest.mark.parametrize(("point", "draft"), [(LLAMA, "llama-3-8b"), (PALM, "palm-8b")])
def test_the_time_is_turns_of_draft_steps_and_a_pass_that_verifies(point, draft):
    model = load_model(draft)
    found = answer(point(speculative="draft", draft_model=model, draft_len=3, acceptance_rate=0.7))
    assert found.status == "ok"
    details = found.facts.details
    turns = turns_until(0.7, 3, 64, point().batch_size)
    assert details["turns"] == turns
    assert found.latency_s == pytest.approx(turns * (details["draft_s"] + details["verify_s"]))
    assert found.step_time_s == pytest.approx(found.latency_s / 64)
    # A step of the draft is one of the draft alone; a pass over 4 tokens takes more than one over 1, and less than 4.
    alone, plain = answer(point(model=model)), answer(point())
    assert details["draft_s"] == pytest.approx(3 * alone.step_time_s, rel=1e-3)
    assert plain.step_time_s < details["verify_s"] < 2 * plain.step_time_s
    held = plain.facts.weights_bytes + alone.facts.weights_bytes
    assert found.facts.weights_bytes == pytest.approx(held)
    assert found.facts.kv_cache_bytes > plain.facts.kv_cache_bytes + alone.facts.kv_cache_bytes
    assert found.latency_low_s < found.latency_s < found.latency_high_s


def test_first_layers_hold_nothing_of_their_own_and_an_ngram_takes_no_pass():
    plain = answer(LLAMA(phase="generate"))
    own = answer(LLAMA(phase="generate", speculative="self", draft_layers=8, acceptance_rate=0.6))
    looked_up = answer(LLAMA(phase="generate", speculative="ngram", acceptance_rate=0.6))
    assert own.ttft_s == pytest.approx(plain.ttft_s)
    assert own.facts.weights_bytes == pytest.approx(plain.facts.weights_bytes)
    assert looked_up.latency_s < own.latency_s < plain.latency_s
    assert "draft_s" not in looked_up.facts.details


def test_more_is_accepted_in_less_time_and_one_proposal_never_accepted_only_costs():
    points = [LLAMA(speculative="ngram", draft_len=1, acceptance_rate=rate / 10) for rate in range(11)]
    times = [each.latency_s for each in AnalyticEngine().estimate(points)]
    assert times == sorted(times, reverse=True)
    assert times[0] > answer(LLAMA()).latency_s > times[-1]


def test_where_all_is_accepted_a_turn_yields_all_and_where_nothing_is_one_token():
    """64 tokens: 16 turns of 3 + 1, or 64 turns of which each makes the one token that the model would make."""
    always, never = (answer(LLAMA(speculative="ngram", draft_len=3, acceptance_rate=rate)) for rate in (1.0, 0.0))
    assert (always.facts.details["turns"], never.facts.details["turns"]) == (16, 64)
    assert (always.facts.tokens_per_turn, never.facts.tokens_per_turn) == (4, 1)
    assert never.latency_s == pytest.approx(4 * always.latency_s)


def test_answers_do_not_depend_on_what_else_is_asked():
    drafted = PALM(speculative="draft", draft_model=load_model("palm-8b"), acceptance_rate=0.5)
    together = AnalyticEngine().estimate([PALM(), drafted, LLAMA(), replace(drafted, draft_len=2), PALM(batch_size=64)])
    assert [each.latency_s for each in together[:2]] == [answer(PALM()).latency_s, answer(drafted).latency_s]


def test_the_rate_must_be_given_and_both_models_must_fit():
    assert answer(LLAMA(speculative="ngram")).error.startswith("acceptance_rate=auto: engine=analytic")
    full = LLAMA(num_chips=2, batch_size=1)
    assert answer(full).status == "ok"
    both = replace(full, speculative="draft", draft_model=load_model("llama-3-8b"), draft_len=4, acceptance_rate=0.8)
    assert answer(both).status == "oom"


MIXTRAL = partial(LLAMA, model="mixtral-8x7b", batch_size=8)
DEEPSEEK = partial(LLAMA, model="deepseek-v3", hw="tpu-v5p", num_chips=64, weight_dtype="int8")


@pytest.mark.parametrize(
    ("point", "key", "value"),
    [
        (MIXTRAL, "expert_parallel", 8),
        (MIXTRAL, "routing_skew", 1.0),
        (DEEPSEEK, "latent_attention", "absorbed"),
        (DEEPSEEK, "attn_sharding", "replicated"),
        (LLAMA, "pruning", "2:4"),
    ],
)
def test_keys_about_the_model_alone_say_nothing_of_its_draft(point, key, value):
    draft = replace(load_model("llama-2-7b"), vocab_size=point().model.vocab_size)
    keys = {"speculative": "draft", "draft_model": draft, "acceptance_rate": 0.7}
    with_key, without = answer(point(**keys, **{key: value})), answer(point(**keys))
    assert with_key.status == without.status == "ok", with_key.error
    assert with_key.facts.details["draft_s"] == without.facts.details["draft_s"]


def test_the_dense_layers_before_experts_can_propose():
    dense, more = (answer(DEEPSEEK(speculative="self", draft_layers=n, acceptance_rate=0.7)) for n in (3, 4))
    assert dense.status == "ok", dense.error
    assert dense.facts.details["draft_s"] < more.facts.details["draft_s"]


def test_a_refusal_of_the_draft_names_it():
    keys = {"weight_dtype": "int4", "weight_group_size": 128, "acceptance_rate": 0.7}
    found = answer(LLAMA(speculative="draft", draft_model=replace(load_model("llama-3-8b"), d_ff=11008), **keys))
    assert found.error.startswith("draft_model=llama-3-8b: weight_group_size=128:")


@pytest.mark.parametrize("keys", [{"offload": "host"}, {"offload": "host", "offload_kv": "host", "batch_size": 64}])
def test_layers_from_the_host_come_once_a_turn_and_the_draft_stays(keys):
    alone = answer(LLAMA(output_len=16, **keys))
    spec = {"draft_len": 3, "acceptance_rate": 1.0, **keys}  # four tokens a turn
    ngram = answer(LLAMA(speculative="ngram", **spec))
    assert ngram.facts.details["turns"] == 16
    assert ngram.latency_s == pytest.approx(alone.latency_s, rel=0.02)
    draft = {"speculative": "draft", "draft_model": load_model("llama-3-8b")}
    found, here = answer(LLAMA(**draft, **spec)), answer(LLAMA(**draft, draft_len=3, acceptance_rate=1.0))
    if "batch_size" not in keys:
        assert found.facts.details["draft_s"] == here.facts.details["draft_s"]
    assert found.facts.details["host_bytes"] == ngram.facts.details["host_bytes"]

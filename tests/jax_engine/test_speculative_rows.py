"""Rows of speculative decoding and of early exit: verified, counted, and said what they are."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from builders.points import point as build_point

from bench.sweep.catalog import load_model
from engines.core.errors import InvalidRequest, Unsupported
from engines.jax.engine import JaxEngine

pytestmark = pytest.mark.usefixtures("plainly_prepared", "small_peaks")

TINY = replace(load_model("tiny"), num_layers=3, d_model=32, d_ff=64, head_dim=8, vocab_size=64)
STEPS, BATCH = 6, 2


def asked(**keys):
    own = {"num_chips": 1, "batch_size": BATCH, "input_len": 5, "output_len": STEPS, "weight_dtype": "float32"}
    return build_point(model=TINY, hw="cpu", engine="jax", **{"phase": "decode", **own, **keys})


@functools.cache
def ran(settings=(), **keys):
    """(verification, ids, facts) of a point."""
    engine, point = JaxEngine(**dict(settings)), asked(**keys)
    program = engine.prepare(point)
    try:
        checked = program.verify()
        facts = program.facts()
        assert facts.program_id == engine.program_id(point)
        return checked, np.asarray(program.decoded[0]), facts
    finally:
        program.close()


def test_a_row_of_a_draft_says_what_was_accepted_and_holds_both_models():
    plain, ids, alone = ran()
    draft = replace(TINY, name="small", num_layers=1)
    checked, made, facts = ran(speculative="draft", draft_model=draft, draft_len=2, phase="generate")
    assert plain.ok
    assert checked.ok
    assert np.array_equal(made, ids)
    rate = facts.details["kept_tokens"] / facts.details["judged_tokens"]
    assert facts.resolved["acceptance_rate"] == rate
    turns = facts.details["turns_by_sequence"]
    assert facts.tokens_per_turn == pytest.approx(STEPS / turns["mean"])
    assert facts.details["turns"] == turns["max"] <= STEPS
    assert "outputs" not in facts.details
    assert facts.weights_bytes > alone.weights_bytes
    assert facts.kv_cache_bytes > alone.kv_cache_bytes


def test_a_given_rate_is_forced_and_the_row_says_that_its_output_is_not_the_models():
    _, ids, _ = ran()
    checked, made, facts = ran(speculative="ngram", draft_len=2, acceptance_rate=1.0)
    assert checked.ok  # the logits are the model's, of the tokens that were kept
    assert not np.array_equal(made, ids)
    assert facts.details["outputs"].startswith("not the model's")
    assert "acceptance_rate" not in facts.resolved
    assert facts.details["turns"] == STEPS // 3
    assert facts.tokens_per_turn == 3


def test_tokens_leave_early_and_the_row_has_their_quality():
    _, ids, _ = ran()
    nobody, same, facts = ran(exit_threshold=1.0, exit_every=1)
    assert nobody.ok
    assert np.array_equal(same, ids)
    assert (facts.mean_layers, nobody.quality_agreement) == (3, 1)
    assert nobody.quality_kl == pytest.approx(0, abs=1e-9)
    everyone, _, facts = ran(exit_threshold=1e-6, exit_every=1)
    assert everyone.ok
    assert (facts.mean_layers, facts.details["layers_of_a_step"]) == (1, 1)
    assert facts.details["tokens_by_layers"] == {"1": STEPS * BATCH}
    assert everyone.quality_kl > 0.01
    # Between: some leave, and a step goes on for the others.
    some, _, facts = ran(exit_threshold=0.05, exit_every=2, num_chips=2)
    assert some.ok
    assert set(facts.details["tokens_by_layers"]) <= {"2", "3"}
    assert facts.mean_layers <= facts.details["layers_of_a_step"]
    # 2 of 3 layers are the only exit, at which every token is judged.
    left = facts.details["tokens_by_layers"].get("2", 0)
    assert facts.resolved["exit_rate"] == left / (STEPS * BATCH)


def test_a_rate_makes_tokens_leave_and_the_row_says_so():
    forced, _, facts = ran(exit_threshold=1.0, exit_every=1, exit_rate=1.0)
    assert forced.ok
    assert facts.mean_layers == 1
    assert facts.details["outputs"].startswith("tokens left by")
    assert "exit_rate" not in facts.resolved


@pytest.mark.parametrize(
    "keys", [{"speculative": "self", "draft_len": 2}, {"exit_threshold": 0.05, "exit_every": 2}], ids=["self", "exits"]
)
def test_a_stop_token_ends_sequences_as_where_it_is_not_asked_for(keys):
    """Where it is never made, nothing changes; where it is, the tokens up to it are counted and no row is made."""
    _, ids, _ = ran(**keys)
    never = next(each for each in range(TINY.vocab_size) if each not in ids)
    checked, made, facts = ran((("stop_token", never),), **keys)
    assert checked.ok
    assert np.array_equal(made, ids)
    assert facts.details["generated_tokens"] == STEPS * BATCH
    stop = int(ids[1, 0])
    until = [min([*np.flatnonzero(column == stop), STEPS - 1]) + 1 for column in ids.T]
    with pytest.raises(InvalidRequest, match=f"stop_token={stop}: stopped early: {sum(until)} of {STEPS * BATCH} tok"):
        ran((("stop_token", stop),), **keys)


@pytest.mark.parametrize(
    ("settings", "keys", "says"),
    [
        ({}, {"speculative": "self", "partitioner": "gspmd"}, "speculative=self: needs partitioner=manual"),
        ({}, {"speculative": "self", "input_len": 0}, "input_len=0: leaves speculative=self"),
        ({"shared_prefix": 2}, {"speculative": "ngram"}, "engine.shared_prefix=2"),
        ({"unroll_layers": True}, {"exit_threshold": 0.5}, "engine.unroll_layers=true has none"),
        ({}, {"exit_threshold": 0.5, "partitioner": "gspmd"}, "exit_threshold: needs partitioner=manual"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, keys, says):
    with pytest.raises((InvalidRequest, Unsupported), match=says):
        JaxEngine(**settings).program_id(asked(**keys))


def test_windows_and_latent_vectors_are_refused():
    short = replace(TINY, attention_window=4, global_every=3)
    with pytest.raises(Unsupported, match="windows of 4 tokens"):
        JaxEngine().program_id(replace(asked(speculative="ngram"), model=short))


def test_a_draft_checkpoint_is_of_a_draft_model(tmp_path):
    with pytest.raises(InvalidRequest, match=r"engine\.draft_checkpoint=\S+: is not a folder"):
        JaxEngine(draft_checkpoint=str(tmp_path / "none"))
    engine = JaxEngine()
    engine.settings = replace(engine.settings, draft_checkpoint=str(tmp_path))
    with pytest.raises(InvalidRequest, match=r"engine\.draft_checkpoint=\S+: is of a draft model"):
        engine.program_id(asked())


def test_an_ngram_is_of_some_tokens():
    with pytest.raises(InvalidRequest, match=r"engine\.ngram=0: must be an integer ≥ 1"):
        JaxEngine(ngram=0)
    with pytest.raises(InvalidRequest, match=r"engine\.ngram=11: never stands twice in the 11 tokens"):
        JaxEngine(ngram=11).program_id(asked(speculative="ngram"))

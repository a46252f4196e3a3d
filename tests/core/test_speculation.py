"""How many turns speculative decoding takes, and which keys go together."""

import numpy as np
import pytest
from builders.points import point
from hypothesis import given
from hypothesis import strategies as st

from bench.sweep.catalog import load_model
from engines.core.errors import InvalidRequest
from engines.core.speculation import token_chances, tokens_per_turn, turns_until

RATES = st.floats(0, 1)
PALM = {
    "model": "palm-540b",
    "hw": "tpu-v4",
    "engine": "analytic",
    "phase": "decode",
    "num_chips": 64,
    "batch_size": 16,
    "input_len": 128,
    "output_len": 64,
}


def test_tokens_of_a_turn_by_hand():
    # 1 + 0.5 + 0.25 of two proposed; (1 − 0.8⁵) / 0.2 of four.
    assert tokens_per_turn(0.5, 2) == 1.75
    assert tokens_per_turn(0.8, 4) == pytest.approx((1 - 0.8**5) / 0.2)
    assert token_chances(0.5, 2).tolist() == [0.5, 0.25, 0.25]
    assert (tokens_per_turn(0, 4), tokens_per_turn(1, 4)) == (1, 5)


@given(rate=RATES, count=st.integers(1, 12))
def test_chances_sum_to_one_and_their_mean_is_the_equation(rate, count):
    chances = token_chances(rate, count)
    assert chances.sum() == pytest.approx(1)
    assert chances @ np.arange(1, count + 2) == pytest.approx(tokens_per_turn(rate, count))


def test_turns_of_a_batch_by_hand():
    assert turns_until(0, 4, 7, 9) == pytest.approx(7)
    assert turns_until(1, 4, 11, 9) == pytest.approx(3)
    # Two tokens, one proposed: one turn with probability 1/2, else two; of two sequences both in one with 1/4.
    assert turns_until(0.5, 1, 2) == pytest.approx(1.5)
    assert turns_until(0.5, 1, 2, 2) == pytest.approx(1.75)


@pytest.mark.parametrize(("rate", "count", "tokens", "batch"), [(0.7, 3, 20, 1), (0.7, 3, 20, 16), (0.3, 5, 40, 4)])
def test_turns_are_the_mean_of_a_simulation(rate, count, tokens, batch):
    rng = np.random.default_rng(0)
    runs = 4000
    made = rng.choice(np.arange(1, count + 2), size=(tokens, runs, batch), p=token_chances(rate, count)).cumsum(axis=0)
    slowest = ((made < tokens).sum(axis=0) + 1).max(axis=1)
    assert turns_until(rate, count, tokens, batch) == pytest.approx(slowest.mean(), abs=5 * slowest.std() / runs**0.5)


@given(rate=RATES, count=st.integers(1, 6), tokens=st.integers(1, 40), batch=st.integers(1, 64))
def test_a_batch_takes_no_fewer_turns_than_one_sequence_and_no_more_than_tokens(rate, count, tokens, batch):
    one, all_ = turns_until(rate, count, tokens), turns_until(rate, count, tokens, batch)
    assert tokens / (count + 1) - 1e-9 <= one <= all_ + 1e-9
    assert all_ <= tokens + 1e-9


def test_what_is_left_open_is_filled_in_where_it_is_read():
    plain = point(**PALM)
    assert (plain.draft_len, plain.draft_layers, plain.axes()["speculative"]) == (None, None, None)
    own = point(**PALM, speculative="self")
    assert (own.draft_len, own.draft_layers) == (4, 29)
    drafted = point(**PALM, speculative="draft", draft_model=load_model("palm-8b"))
    assert drafted.axes()["draft_model"] == "palm-8b"
    drafted.check()
    assert len({each.fingerprint("x") for each in (plain, own, drafted)}) == 3


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"speculative": "draft"}, "draft_model"),
        ({"speculative": "draft", "draft_model": load_model("llama-3-8b")}, "draft_model"),
        ({"speculative": "ngram", "draft_model": load_model("palm-8b")}, "draft_model"),
        ({"speculative": "ngram", "draft_layers": 2}, "draft_layers"),
        ({"speculative": "self", "draft_layers": 118}, "draft_layers"),
        ({"draft_len": 4}, "draft_len"),
        ({"acceptance_rate": 0.5}, "acceptance_rate"),
        ({"speculative": "self", "acceptance_rate": 1.5}, "acceptance_rate"),
        ({"speculative": "self", "phase": "prefill"}, "speculative"),
        ({"speculative": "self", "exit_threshold": 0.5}, "exit_threshold"),
        ({"speculative": "self", "planner": "alpa", "partitioner": "gspmd"}, "planner"),
        ({"exit_every": 4}, "exit_every"),
        ({"exit_rate": 0.5}, "exit_rate"),
        ({"exit_threshold": 0.5, "exit_rate": 1.5}, "exit_rate"),
        ({"exit_threshold": 1.5}, "exit_threshold"),
        ({"exit_threshold": 0.5, "phase": "prefill"}, "exit_threshold"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, key):
    with pytest.raises(InvalidRequest) as refused:
        point(**{**PALM, **keys}).check()
    assert refused.value.key == key


def test_proposed_tokens_take_positions_too():
    learned = {**PALM, "model": "mt-nlg-530b", "input_len": 1980, "output_len": 64}
    point(**learned).check()
    with pytest.raises(InvalidRequest, match="draft_len=8: makes 2052 tokens"):
        point(**learned, speculative="ngram", draft_len=8).check()


def test_a_name_is_no_model():
    with pytest.raises(InvalidRequest, match="draft_model=palm-8b: is not what a file"):
        point(**PALM, speculative="draft", draft_model="palm-8b")

import jax
import numpy as np
import pytest
from test_jax_engine import point

from engines.core.errors import InvalidRequest
from engines.jax.engine import JaxEngine
from engines.jax.stop_token import complete_run, generated

pytestmark = [pytest.mark.usefixtures("plainly_prepared", "small_peaks"), pytest.mark.slow]

SMALL = {"num_chips": 2, "batch_size": 2, "output_len": 4}


def run(**settings):
    program = JaxEngine(**settings).prepare(point(**SMALL))
    try:
        checked = program.verify()
        return checked, np.asarray(program.decoded[0]), program.facts().details
    finally:
        program.close()


def test_sampled_tokens_verify_and_the_row_says_how_they_were_drawn():
    checked, tokens, details = run(temperature=1.5, top_k=50, top_p=0.9, seed=1)
    assert checked.ok
    asked = {"temperature": 1.5, "top_k": 50, "top_p": 0.9, "seed": 1}
    assert {key: details[key] for key in asked} == asked
    assert "steps_run" not in details
    greedy, likeliest, _ = run(seed=1)
    assert greedy.ok
    assert not np.array_equal(tokens, likeliest)


def test_a_stop_token_makes_a_row_only_where_it_cuts_nothing():
    _, tokens, _ = run()
    never = next(each for each in range(tokens.size + 3) if each not in tokens)
    checked, same, details = run(stop_token=never)
    assert checked.ok
    assert np.array_equal(same, tokens)
    assert (details["steps_run"], details["generated_tokens"], details["stop_token"]) == (4, 8, never)
    with pytest.raises(
        InvalidRequest, match=rf"engine.stop_token={tokens[0, 0]}: stopped early: . of 8 tokens in . of 4"
    ):
        run(stop_token=int(tokens[0, 0]))


def test_tokens_up_to_the_stop_by_hand():
    # 9 stops: after two tokens, in the last step, never, in the first step, before all of them.
    first = np.array([1, 1, 1, 1, 9], np.int32)
    tokens = np.array([[5, 5, 5, 9, 9], [9, 6, 6, 9, 9], [9, 9, 7, 9, 9]], np.int32)
    assert generated(first, tokens, 9).tolist() == [2, 3, 3, 1, 0]
    with pytest.raises(InvalidRequest, match="9 of 15 tokens in 3 of 3 steps"):
        complete_run(first, tokens, 9, 3)
    # A stop in the last step cuts nothing.
    assert complete_run(first[1:3], tokens[:, 1:3], 9, 3) == {"steps_run": 3, "generated_tokens": 6}


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"temperature": -0.5}, "engine.temperature=-0.5"), ({"top_k": 40}, "engine.top_k=40.*set engine.temperature=1")],
)
def test_settings_that_make_no_sense_make_no_engine(settings, says):
    with pytest.raises(InvalidRequest, match=says):
        JaxEngine(**settings)


def test_a_stop_token_that_is_no_id_is_refused_before_memory_is_taken():
    before = len(jax.live_arrays())
    vocab_size = point().model.vocab_size
    with pytest.raises(InvalidRequest, match=f"engine.stop_token={vocab_size}: is not in the vocabulary of tiny"):
        JaxEngine(stop_token=vocab_size).prepare(point(**SMALL))
    assert len(jax.live_arrays()) <= before  # those of a former test may be collected meanwhile


def test_what_is_asked_is_part_of_what_identifies_an_answer():
    assert JaxEngine(temperature=1.0).options == {"temperature": 1.0}
    assert JaxEngine(temperature=0, top_p=1).options == {}

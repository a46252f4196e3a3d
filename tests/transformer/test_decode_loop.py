import functools
import math
import re
from collections import Counter
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.plans import mesh_of, plan_of
from hlo_collectives import LINE, loop_collectives
from partitioned_case import TIME, relative_error

from engines.core.errors import InvalidRequest
from engines.transformer.generate.decode_loop import every_step, until_stopped
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.options import Sampling
from engines.transformer.programs import abstract_arguments, load_parameters, make_decode, make_prefill
from engines.weights.random import prompt

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

STEPS = 6
DRAWN = {"temperature": 1.0, "top_k": 40, "top_p": 0.95, "seed": 3}
ONE_CHIP = ("palm", (1, 1, 1), "ws_1d", "heads", "manual")


@functools.cache
def generated(model, shape, ffn_layout, attn_sharding, partitioner, batch_size=8, stop_token=None):
    """The prompt with its next token, [batch, time + 1], and what decode makes of it, without the cache."""
    plan = plan_of(MODELS[model], shape, ffn_layout, attn_sharding, batch_size, partitioner=partitioner)
    plan, mesh = replace(plan, cache_len=TIME + STEPS), mesh_of(shape)
    sampling = Sampling(**DRAWN, stop_token=stop_token)
    weights, cache = load_parameters(plan, mesh, 0), make_cache(plan, mesh)
    tokens = prompt(plan.model, batch_size, TIME, 0)
    first, _, cache = make_prefill(plan, mesh, sampling)(weights, cache, tokens)
    made, scores, _, *ran = make_decode(plan, mesh, STEPS, sampling)(weights, cache, first, np.int32(TIME))
    fed = np.concatenate([tokens, np.asarray(first)[:, None]], axis=1)
    return fed, np.asarray(made), np.asarray(scores)[..., : plan.model.vocab_size], [int(each) for each in ran]


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize(
    ("shape", "ffn_layout", "attn_sharding", "partitioner"),
    [
        ((2, 2, 2), "ws_2d", "batch", "manual"),
        pytest.param((2, 2, 2), "ws_1d", "heads", "manual", marks=pytest.mark.slow),
        pytest.param((2, 2, 2), "wg_xyz", "batch", "manual", marks=pytest.mark.slow),
        pytest.param((1, 1, 2), "ws_1d", "batch", "manual", marks=pytest.mark.slow),
        pytest.param((2, 2, 2), "ws_2d", "batch", "gspmd", marks=pytest.mark.slow),
    ],
)
def test_the_same_seed_gives_the_same_tokens_in_every_layout(shape, ffn_layout, attn_sharding, partitioner):
    fed, made, _, _ = generated(*ONE_CHIP)
    again, likewise, _, _ = generated("palm", shape, ffn_layout, attn_sharding, partitioner)
    assert np.array_equal(fed, again)
    assert np.array_equal(made, likewise)
    assert len(np.unique(made)) > 20


def test_a_sequence_that_stopped_goes_on_stopping_and_the_others_are_not_disturbed():
    fed, made, _, none = generated(*ONE_CHIP)
    stop_token = int(made[2, 1])
    likewise, stopped, _, ran = generated("palm", (2, 2, 2), "ws_2d", "batch", "manual", stop_token=stop_token)
    assert np.array_equal(fed, likewise)
    expected, gone = made.copy(), fed[:, -1] == stop_token
    for step in expected:
        step[gone] = stop_token
        gone |= step == stop_token
    assert np.array_equal(stopped, expected)
    assert (expected[3:, 1] == stop_token).all()
    assert not gone.all()
    assert (none, ran) == ([], [STEPS])


@pytest.mark.parametrize("partitioner", ["manual", "gspmd"])
def test_the_loop_ends_once_every_sequence_has_stopped(partitioner):
    fed, made, _, _ = generated(*ONE_CHIP, batch_size=1)
    stop_token = int(made[1, 0])
    assert stop_token not in (fed[0, -1], made[0, 0])
    fed, stopped, scores, ran = generated(
        "palm", (1, 2, 2), "ws_2d", "heads", partitioner, batch_size=1, stop_token=stop_token
    )
    assert ran == [2]
    assert stopped[:, 0].tolist() == [made[0, 0]] + [stop_token] * (STEPS - 1)
    # The logits of both steps, last; before them nothing.
    tokens = np.concatenate([fed, stopped[:1].T], axis=1)
    assert relative_error(MODELS["palm"], tokens, (TIME, TIME + 1), scores[-2:]) < 1e-5
    assert not scores[:-2].any()


def count_up(cache, token, number):
    return {"calls": cache["calls"] + 1}, jnp.full((2, 3), number + 1.0), token + 1


@pytest.mark.parametrize(
    ("stop_token", "ran", "tokens", "last"),
    [
        # From 0 and 5 upwards; 2 comes after two steps for the one, for the other never.
        (2, 5, [[1, 6], [2, 7], [2, 8], [2, 9], [2, 10]], [4, 5]),
        (99, 5, [[1, 6], [2, 7], [3, 8], [4, 9], [5, 10]], [4, 5]),
    ],
)
def test_loops_by_hand(stop_token, ran, tokens, last):
    start = ({"calls": jnp.int32(0)}, jnp.array([0, 5]), jnp.zeros((2, 2, 3)))
    made, scores, cache, count = until_stopped(count_up, *start, 5, stop_token)
    assert (made.tolist(), scores[:, 0, 0].tolist()) == (tokens, last)
    assert (int(count), int(cache["calls"])) == (ran, ran)
    if stop_token == 99:
        made, scores, cache = every_step(count_up, *start, 5)
        assert (made.tolist(), scores[:, 0, 0].tolist(), int(cache["calls"])) == (tokens, last, 5)


@pytest.mark.parametrize(("first", "ran", "last"), [([1, 3], 3, [2, 3]), ([3, 3], 1, [0, 1]), ([4, 4], 0, [0, 0])])
def test_an_early_end_by_hand(first, ran, last):
    # 4 stops: it comes after 4 − first steps; a sequence that begins with it has stopped already.
    start = ({"calls": jnp.int32(0)}, jnp.array(first), jnp.zeros((2, 2, 3)))
    made, scores, cache, count = until_stopped(count_up, *start, 5, 4)
    assert (int(count), int(cache["calls"]), scores[:, 0, 0].tolist()) == (ran, ran, last)
    assert made.tolist() == [[min(each + step, 4) for each in first] for step in range(1, 6)]


@functools.cache
def compiled_decode(sampling, partitioner="manual"):
    """HLO of decode steps of a model whose vocabulary is by far its largest dimension."""
    model = small_model(vocab_size=4096)
    plan, mesh = plan_of(model, (2, 2, 2), "ws_2d", "batch", partitioner=partitioner), mesh_of((2, 2, 2))
    decode = make_decode(plan, mesh, 3, sampling)
    return decode.lower(*abstract_arguments(plan, mesh, TIME)["decode"]).compile().as_text()


ONE_NUMBER = 8 * 4
"""Bytes of one number of each of the 8 sequences."""


@pytest.mark.parametrize(
    ("narrowed", "rounds", "candidates"),
    [
        # A cut of the scores' order and one of the ids', whose every round adds up 3 sums.
        ({"top_p": 0.9}, 2, 0),
        ({"top_k": 1000, "top_p": 0.9}, 4, 0),
        # The 40 likeliest scores of each of 8 chips, and their ids.
        ({"top_k": 40, "top_p": 0.9}, 0, 2),
    ],
)
def test_sampling_sends_what_it_needs_and_no_word_to_the_host(narrowed, rounds, candidates):
    text = compiled_decode(Sampling(temperature=1.0, stop_token=7, **narrowed))
    added = loop_collectives(text, (2, 2, 2)) - loop_collectives(compiled_decode(Sampling()), (2, 2, 2))
    # Sums of a few numbers are made of all chips' terms.
    assert added.pop(("all-gather", "xyz", 8 * 3 * ONE_NUMBER), 0) == rounds
    for few in (1, 2):
        added.pop(("all-gather", "xyz", 8 * few * ONE_NUMBER), 0)
    gathered = {key: added.pop(key) for key in list(added) if key[0] == "all-gather"}
    assert sum(size * count for (_, _, size), count in gathered.items()) == candidates * 8 * 40 * ONE_NUMBER
    assert all(kind == "all-reduce" and size <= 2 * ONE_NUMBER for kind, _, size in added)
    assert not re.search(r"infeed|outfeed|callback|\b(send|recv)\(", text)


def test_the_compiler_does_not_bring_the_vocabulary_together_either():
    greedy, drawn = (
        Counter((found["kind"], found["shape"]) for found in map(LINE.search, text.splitlines()) if found)
        for text in (compiled_decode(sampling, "gspmd") for sampling in (Sampling(), Sampling(**DRAWN)))
    )
    added = [
        (kind, [math.prod(map(int, dims.split(","))) for dims in re.findall(r"\[([\d,]+)\]", shape)])
        for kind, shape in drawn - greedy
    ]
    # No more than the candidates of all chips.
    assert max(max(sizes) for _, sizes in added) == 8 * 8 * 40


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"temperature": -1.0}, r"engine.temperature=-1.0: must be 0 or between"),
        ({"temperature": float("nan")}, r"engine.temperature=nan: must be 0 or between"),
        ({"temperature": 1e-9}, r"engine.temperature=1e-09: must be 0 or between"),
        ({"temperature": "hot"}, r"engine.temperature=hot: must be a number"),
        ({"temperature": 1.0, "top_k": -1}, r"engine.top_k=-1: must be an integer ≥ 0"),
        ({"temperature": 1.0, "top_k": 2.5}, r"engine.top_k=2.5: must be an integer"),
        ({"temperature": 1.0, "top_p": 0.0}, r"engine.top_p=0.0: must be > 0 and ≤ 1"),
        ({"temperature": 1.0, "top_p": 1.5}, r"engine.top_p=1.5: must be > 0 and ≤ 1"),
        ({"top_k": 40}, r"engine.top_k=40: has no effect with engine.temperature=0"),
        ({"top_p": 0.9}, r"engine.top_p=0.9: has no effect with engine.temperature=0"),
        ({"stop_token": -1}, r"engine.stop_token=-1: must be an integer ≥ 0"),
        ({"stop_token": True}, r"engine.stop_token=true: must be an integer ≥ 0"),
        ({"stop_token": 61}, r"engine.stop_token=61: is not in the vocabulary of small; use an id below 61"),
    ],
)
def test_settings_that_make_no_sense(changes, says):
    with pytest.raises(InvalidRequest, match=says):
        Sampling(**changes).check(MODELS["palm"])


def test_settings_that_do():
    Sampling(temperature=1, top_k=0, top_p=1, stop_token=60).check(MODELS["palm"])
    assert Sampling().greedy
    assert not Sampling(temperature=1e-6).greedy

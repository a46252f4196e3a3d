import functools

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders.models import small_model
from builders.plans import mesh_of, plan_of
from hypothesis import given, settings
from jax.sharding import PartitionSpec as P
from scipy.stats import chisquare, gumbel_r, kstest

from engines.transformer.generate.sampling import gumbel, next_tokens, vocab_ids
from engines.transformer.generate.top_k_top_p import Candidates, comparable, gathers_few, kept_mask, top_candidates
from engines.transformer.options import Sampling

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

VOCAB = 29
SHAPES = [(1, 1, 1), (2, 2, 2)]
NARROWED = [
    ({"top_k": 1}, False),
    ({"top_k": 5}, False),
    ({"top_k": VOCAB + 100}, False),
    ({"top_p": 0.5}, False),
    ({"top_p": 0.9}, False),
    ({"top_p": 1e-12}, False),
    ({"top_p": 0.75, "top_k": 6}, False),
    ({"top_k": 5}, True),
    ({"top_p": 0.75, "top_k": 6}, True),
]
"""What is asked, and whether the first k of all chips are gathered."""


def on_mesh(shape, body, spread: bool, vocab_size=VOCAB):
    """``body(plan, *arrays)`` of arrays [batch, vocab], padded with −inf and cut over all chips.

    Its result is cut likewise where it is ``spread``, else one on every chip.
    """
    plan = plan_of(small_model(vocab_size=vocab_size), shape, "ws_2d", "heads", 8)
    cut, mesh = P(None, plan.axes.all or None), mesh_of(shape)

    @jax.jit
    def mapped(*arrays):
        return jax.shard_map(
            functools.partial(body, plan), mesh=mesh, in_specs=cut, out_specs=cut if spread else P(), check_vma=False
        )(*arrays)

    def run(*arrays):
        padding = ((0, 0), (0, plan.padded.vocab - vocab_size))
        padded = (np.pad(np.asarray(each, np.float32), padding, constant_values=-np.inf) for each in arrays)
        found = np.asarray(mapped(*padded))
        return found[:, :vocab_size] if spread else found

    return run


@functools.cache
def drawn(shape, sampling, position=0, vocab_size=VOCAB):
    def body(plan, scores):
        return next_tokens(plan, scores, sampling, position)

    return on_mesh(shape, body, spread=False, vocab_size=vocab_size)


@functools.cache
def kept(shape, sampling, gathered=False):
    """Which ids stay of scores and scaled scores: of all in their places, or of the first k of all chips."""

    def body(plan, scores, scaled):
        ids = jnp.broadcast_to(vocab_ids(plan), scores.shape)
        spread = Candidates(comparable(scores), ids, plan.axes.all)
        if not gathered:
            return kept_mask(plan, spread, scaled, sampling.top_k, sampling.top_p)
        first = top_candidates(spread, sampling.top_k)
        stay = kept_mask(
            plan, first, top_candidates(spread._replace(scores=scaled), sampling.top_k).scores, 0, sampling.top_p
        )
        return jnp.zeros((len(scores), VOCAB), bool).at[jnp.arange(len(scores))[:, None], first.ids].set(stay)

    return on_mesh(shape, body, spread=not gathered)


def noise(shape, seed, batch, position, vocab_size=VOCAB):
    def body(plan, scores):
        return gumbel(seed, position, jnp.broadcast_to(vocab_ids(plan), scores.shape))

    return on_mesh(shape, body, spread=True, vocab_size=vocab_size)(np.zeros((batch, vocab_size)))


def scaled(scores, temperature):
    return (scores - scores.max(axis=1, keepdims=True)) / np.float32(temperature)


def reference(scores, *, temperature=1.0, top_k=0, top_p=1.0):
    """Probabilities [vocab] in float64, from the whole sorted vocabulary of one sequence."""
    order = np.lexsort((np.arange(len(scores)), -scores))[: top_k or None]
    likely = np.exp((scores[order].astype(np.float64) - scores.max()) / temperature)
    likely /= likely.sum()
    # As few as reach top_p: an id kept_mask if those before it do not.
    likely[1:][np.cumsum(likely)[:-1] >= top_p] = 0
    found = np.zeros(len(scores))
    found[order] = likely / likely.sum()
    return found


LOGITS = st.one_of(
    hnp.arrays(np.float32, (2, VOCAB), elements=st.floats(-12, 12, width=32, allow_subnormal=False)),
    # Many equal ones, zeros of both signs among them.
    hnp.arrays(np.float32, (2, VOCAB), elements=st.sampled_from([-2.0, -0.0, 0.0, 1.0, 1.5])),
)


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("narrowed", "gathered"), NARROWED)
@settings(max_examples=20)
@given(scores=LOGITS, temperature=st.sampled_from([0.25, 1.0, 3.0]))
def test_the_same_ids_stay_as_on_the_whole_sorted_vocabulary(shape, narrowed, gathered, scores, temperature):
    found = kept(shape, Sampling(temperature=1.0, **narrowed), gathered)(scores, scaled(scores, temperature))
    for row, mine in zip(scores, found, strict=True):
        asked = {"temperature": temperature, "top_k": narrowed.get("top_k", 0)}
        # Probabilities of float32 reach p a little sooner or later than those of float64.
        least, most = (reference(row, **asked, top_p=narrowed.get("top_p", 1) + off) > 0 for off in (-1e-6, 1e-6))
        assert not (least & ~mine).any()
        assert not (mine & ~most).any()
        # In between as well, those that stay are the first.
        order = np.lexsort((np.arange(VOCAB), -row))
        assert (np.diff(mine[order].astype(int)) <= 0).all()


def test_what_stays_by_hand():
    # e^0 : e^−ln2 : e^−ln4 : e^−ln4 = 1/2 : 1/4 : 1/8 : 1/8, the rest nothing.
    scores = np.full((1, VOCAB), -80.0, np.float32)
    scores[0, [3, 20, 9, 7]] = -np.log([1, 2, 4, 4])
    for top_p, ids in [(0.3, [3]), (0.51, [3, 20]), (0.76, [3, 7, 20]), (0.9, [3, 7, 9, 20])]:
        found = kept((2, 2, 2), Sampling(temperature=1.0, top_p=top_p))(scores, scaled(scores, 1))
        assert np.flatnonzero(found[0]).tolist() == ids
    # Of the first three 4/7 : 2/7 : 1/7, so that 0.58 needs two of them.
    found = kept((2, 2, 2), Sampling(temperature=1.0, top_k=3, top_p=0.58))(scores, scaled(scores, 1))
    assert np.flatnonzero(found[0]).tolist() == [3, 20]


@pytest.mark.parametrize("shape", SHAPES)
def test_draws_follow_the_distribution(shape):
    scores = np.random.default_rng(1).normal(0, 1.5, VOCAB).astype(np.float32)
    chosen = {"temperature": 0.7, "top_k": 12, "top_p": 0.95}
    tokens = drawn(shape, Sampling(**chosen, seed=5))(np.tile(scores, (4096, 1)))
    expected = reference(scores, **chosen)
    assert 5 < (expected > 0).sum() < 12
    counted = np.bincount(tokens, minlength=VOCAB)
    assert counted[expected == 0].sum() == 0
    assert chisquare(counted[expected > 0], 4096 * expected[expected > 0]).pvalue > 1e-3
    # The test would see another temperature.
    other = reference(scores, **{**chosen, "temperature": 0.8})
    assert chisquare(counted[other > 0], 4096 * other[other > 0]).pvalue < 1e-3


def test_draws_do_not_depend_on_how_the_vocabulary_is_cut():
    vocab_size = 400
    scores = np.random.default_rng(2).normal(0, 2, (64, vocab_size))
    sampling, shapes = Sampling(temperature=2.0, top_k=20, top_p=0.8, seed=1), [(1, 1, 1), (1, 1, 2), (2, 2, 2)]
    # Two chips gather the 20 likeliest of each, which eight do not.
    plans = [plan_of(small_model(vocab_size=vocab_size), shape, "ws_2d", "heads", 8) for shape in shapes]
    assert [gathers_few(plan, sampling) for plan in plans] == [True, True, False]
    tokens = [drawn(shape, sampling, vocab_size=vocab_size)(scores) for shape in shapes]
    assert all(np.array_equal(tokens[0], each) for each in tokens[1:])
    assert len(np.unique(tokens[0])) > 40


def test_a_single_id_is_certain_and_equals_go_to_the_lowest():
    scores = np.zeros((8, VOCAB))
    assert drawn((2, 2, 2), Sampling())(scores).tolist() == [0] * 8
    assert drawn((2, 2, 2), Sampling(temperature=5.0, top_k=1))(scores).tolist() == [0] * 8
    scores[:, 17] = 1e-3
    assert drawn((2, 2, 2), Sampling(temperature=5.0, top_k=1))(scores).tolist() == [17] * 8
    # However little the temperature leaves of the rest.
    assert drawn((2, 2, 2), Sampling(temperature=1e-6))(scores).tolist() == [17] * 8


def test_noise_is_standard_gumbel_and_of_seed_sequence_position_and_id_alone():
    base = noise((1, 1, 1), 0, 512, 3)
    assert kstest(base.ravel(), gumbel_r.cdf).pvalue > 1e-3
    assert np.array_equal(base, noise((2, 2, 2), 0, 512, 3))
    assert np.array_equal(base[:7, :11], noise((1, 1, 1), 0, 7, 3, vocab_size=11))
    for seed, position in ((0, 4), (1, 3), (1 << 40, 3)):
        other = noise((1, 1, 1), seed, 512, position)
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 0.03
    for axis in (0, 1):
        assert abs(np.corrcoef(base.ravel(), np.roll(base, 1, axis).ravel())[0, 1]) < 0.03


def test_a_known_value():
    # Stored rows name a seed: the noise that it stands for must never change.
    assert noise((1, 1, 1), 0, 2, 3)[1, :3].tolist() == pytest.approx([-1.015713, 1.152320, 0.329946], abs=1e-5)

"""Rejection sampling alone: what is kept and what follows are distributed as the model's own tokens."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders.models import small_model
from builders.plans import mesh_of, plan_of
from jax.sharding import PartitionSpec as P
from scipy import stats

from engines.transformer.options import Sampling
from engines.transformer.speculation.propose import Text, followed
from engines.transformer.speculation.rejection import DRAFTED, Proposal, drawn, log_probabilities, verdict

pytestmark = pytest.mark.usefixtures("plainly_compiled")

DRAWS = 100_000
VOCAB = 7
COUNT = 2
SAMPLINGS = [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 4}, {"temperature": 1.3, "top_p": 0.8}]


@functools.cache
def tokens_of(settings, way):
    """Three tokens of 10⁵ sequences of one model: those kept of two that a draft drew, the next, and fresh ones.

    The model's logits depend on the token before alone, so that what would follow others is known.
    """
    plan = replace(plan_of(small_model(vocab_size=VOCAB), batch_size=8), batch_size=DRAWS)
    sampling = Sampling(**dict(settings), seed=5)
    model = jnp.asarray(np.random.default_rng(1).normal(0, 1.5, (VOCAB, VOCAB)), jnp.float32)
    draft = model + jnp.asarray(np.random.default_rng(2).normal(0, 0.8, (VOCAB, VOCAB)), jnp.float32)
    position = jnp.full(DRAWS, 9)

    def drafted():
        token, tokens, log_q = jnp.zeros(DRAWS, jnp.int32), [], []
        for number in range(COUNT):
            log_q.append(log_probabilities(plan, draft[token], sampling))
            token = drawn(plan, log_q[-1], sampling, DRAFTED, position + number)
            tokens.append(token)
        return Proposal(jnp.stack(tokens, 1), jnp.stack(log_q, 1))

    def run():
        proposal = drafted() if way == "draft" else Proposal(jnp.full((DRAWS, COUNT), 3, jnp.int32))
        before = jnp.concatenate([jnp.zeros((DRAWS, 1), jnp.int32), proposal.tokens], axis=1)
        found = verdict(plan, model[before], proposal, sampling, position)
        return proposal.tokens, found.kept, found.following, jnp.exp(log_probabilities(plan, model, sampling))

    found = jax.shard_map(run, mesh=mesh_of((1, 1, 1)), in_specs=(), out_specs=P(), check_vma=False)
    return tuple(map(np.asarray, jax.jit(found)()))


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        (SAMPLINGS[0], "draft"),
        (SAMPLINGS[0], "ngram"),
        pytest.param(SAMPLINGS[1], "draft", marks=pytest.mark.slow),
        pytest.param(SAMPLINGS[2], "ngram", marks=pytest.mark.slow),
    ],
)
@pytest.mark.thorough(every=2)
def test_the_output_of_a_turn_has_the_distribution_of_the_model(settings, way):
    proposed, kept, following, model = tokens_of(tuple(settings.items()), way)
    first = np.where(kept > 0, proposed[:, 0], following)
    assert p_value(first, model[0]) > 1e-3
    # Of the sequences that got a second token in the turn, it is distributed as what follows the first.
    second = np.where(kept > 1, proposed[:, 1], following)
    for token in range(VOCAB):
        mine = (kept > 0) & (first == token)
        if mine.sum() > 2000:
            assert p_value(second[mine], model[token]) > 1e-4


def test_chi_square_would_see_a_draft_that_is_taken_as_it_is():
    proposed, _, _, model = tokens_of(tuple(SAMPLINGS[0].items()), "draft")
    assert p_value(proposed[:, 0], model[0]) < 1e-12


def p_value(tokens, expected):
    """Of Pearson's chi-square test; an id of no probability must not be there."""
    observed = np.bincount(tokens, minlength=len(expected))
    there = expected > 0
    assert observed[~there].sum() == 0
    expected = expected[there] / expected[there].sum() * observed.sum()
    return stats.chisquare(observed[there], expected, sum_check=False).pvalue if there.sum() > 1 else 1.0


def test_the_rate_of_acceptance_is_the_overlap_of_the_distributions():
    # Leviathan et al. 2023, section 3.3: a token is kept with probability Σ min(p, q).
    proposed, kept, _, model = tokens_of(tuple(SAMPLINGS[0].items()), "draft")
    share = np.bincount(proposed[:, 0], minlength=VOCAB) / DRAWS
    assert (kept > 0).mean() == pytest.approx(np.minimum(model[0], share).sum(), abs=0.01)


def test_greedy_keeps_what_the_model_would_have_chosen_and_forced_what_chance_says():
    plan = plan_of(small_model(vocab_size=VOCAB))
    scores = jnp.zeros((8, 3, VOCAB)).at[:, 0, 4].set(1).at[:, 1, 2].set(1).at[:, 2, 6].set(1)
    proposal = Proposal(jnp.asarray([[4, 2], [4, 3], [1, 2]] + [[4, 2]] * 5))
    mesh = mesh_of((1, 1, 1))

    def judged(forced):
        def run():
            return verdict(plan, scores, proposal, Sampling(), jnp.arange(8), forced)

        return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(), out_specs=P(), check_vma=False))()

    assert judged(None).kept.tolist() == [2, 1, 0, 2, 2, 2, 2, 2]
    assert judged(None).following.tolist() == [6, 2, 4, 6, 6, 6, 6, 6]
    assert judged(1.0).kept.tolist() == [2] * 8
    assert judged(0.0).kept.tolist() == [0] * 8
    assert judged(0.0).following.tolist() == [4] * 8


@pytest.mark.parametrize(
    ("ids", "last", "ngram", "found"),
    [
        # 1 2 stood at 0 and at 3, and 7 8 9 followed the last of them.
        ([1, 2, 5, 1, 2, 7, 8, 9, 1, 2, 0, 0], 9, 2, [7, 8, 9]),
        # 1 2 stood just before: what followed it is repeated.
        ([1, 2, 1, 2, 0, 0], 3, 2, [1, 2, 1]),
        # No 5 6 before: 6 again.
        ([1, 2, 5, 6, 0, 0], 3, 2, [6, 6, 6]),
        # Of 6 alone there is one.
        ([6, 2, 5, 6, 0, 0], 3, 1, [2, 5, 6]),
        # What stands behind the end is nothing that was said.
        ([1, 2, 3, 1, 2], 2, 1, [3, 3, 3]),
    ],
)
def test_what_followed_the_same_tokens_before(ids, last, ngram, found):
    text = Text(jnp.asarray([ids, ids]), jnp.asarray([last, last]))
    assert followed(text, 3, ngram).tolist() == [found, found]

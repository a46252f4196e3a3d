"""Steps of sequences of different lengths: padded and in pages they are the same, and right."""

from dataclasses import replace

import numpy as np
import pytest
from builders.plans import mesh_of
from builders.plans import plan_of as build_plan
from hypothesis import given
from hypothesis import strategies as st
from partitioned_case import error_of, run

from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.layers.packing import pack
from engines.transformer.layers.ragged import NOBODY, Ragged, pages_of
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_decode, make_ragged_prefill
from engines.transformer.reference import reference_logits
from engines.weights.random import prompt
from engines.weights.texts import Texts

pytestmark = pytest.mark.usefixtures("plainly_compiled")

LIMIT, STEPS, PAGE = 7, 3, 4
LENGTHS = np.array([3, 7, 1, 4, 7, 2, 5, 6], np.int32)


def decoded(plan: Plan, packed: bool) -> np.ndarray:
    """Logits [1 + STEPS, batch, vocab] of a prefill and the steps after it, fed with fixed tokens' own choices."""
    lengths = LENGTHS[: plan.batch_size]
    plan = replace(plan, ragged=True)
    pages = pages_of(plan, lengths, STEPS, PAGE) if packed else ()
    plan = replace(plan, pages=(pages.owner.size, PAGE)) if packed else plan
    mesh = mesh_of(plan.mesh_shape)
    weights, cache = load_parameters(plan, mesh, 0), make_cache(plan, mesh)
    tokens = prompt(plan.model, plan.batch_size, LIMIT, 0)
    rows, packing = pack(plan, tokens, lengths, pages) if packed else (tokens, ())
    last = lengths - 1 + (packing.starts if packed else 0)
    first, scores, cache = run(make_ragged_prefill(plan, mesh, LIMIT, packing=packing), weights, cache, rows, last)
    made, steps, _ = run(make_decode(plan, mesh, STEPS), weights, cache, first, Ragged(lengths, pages))
    found = np.concatenate([np.asarray(scores)[None], np.asarray(steps)])[..., : plan.model.vocab_size]
    return found, np.concatenate([np.asarray(first)[:, None], np.asarray(made).T[:, :-1]], axis=1)


CASES = [
    (("palm", (1, 1, 1), "ws_1d", "heads"), {"unrolled": True}),
    (("gpt", (2, 2, 2), "ws_2d", "heads"), {"collectives": "throughput"}),
    (("llama", (2, 2, 2), "ws_2d", "batch"), {"batch_size": 4}),
    (("palm", (2, 2, 2), "wg_xyz", "batch"), {}),
]


@pytest.mark.parametrize(("layout", "changes"), CASES)
@pytest.mark.thorough(every=2)
def test_packed_steps_are_padded_steps_and_the_models(layout, changes):
    plan = build_plan(*layout, cache_len=LIMIT + STEPS, **changes)
    padded, generated = decoded(plan, packed=False)
    packed, again = decoded(plan, packed=True)
    assert np.array_equal(generated, again)
    assert error_of(padded, packed) < 1e-5
    texts = Texts(prompt(plan.model, plan.batch_size, LIMIT, 0), LENGTHS[: plan.batch_size])
    texts.compare_last()
    texts.go_on(generated, STEPS)
    expected = reference_logits(plan.model, texts.tokens, texts.asked, 0, plan.cache_len)
    assert error_of(texts.of_each(expected), padded) < 1e-5


@given(lengths=st.lists(st.integers(1, 40), min_size=8, max_size=8), steps=st.integers(0, 9), size=st.integers(1, 16))
def test_every_position_has_one_page_and_no_sequence_more_than_it_fills(lengths, steps, size):
    plan = build_plan("palm", (2, 2, 1), "wg_xy", "heads")
    owner, begins, first = pages_of(plan, np.asarray(lengths, np.int32), steps, size)
    shards = plan.axes.size(plan.axes.sequence)
    owner, begins, first = owner.reshape(shards, -1), begins.reshape(shards, -1), first.reshape(shards, -1)
    for number, length in enumerate(lengths):
        shard, local = divmod(number, 8 // shards)
        mine = np.flatnonzero((owner[shard] == local) & (begins[shard] != NOBODY))
        assert mine[0] == first[shard, local]
        assert begins[shard, mine].tolist() == list(range(0, length + steps, size))
    assert (begins != NOBODY).sum(axis=1).max() == begins.shape[1]

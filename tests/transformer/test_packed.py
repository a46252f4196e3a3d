from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from builders.plans import mesh_of
from builders.plans import plan_of as build_plan
from hypothesis import given
from hypothesis import strategies as st
from partitioned_case import relative_error

from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.layers.mask import Causal
from engines.transformer.layers.packing import pack
from engines.transformer.options import PrefillOptions
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_decode, make_ragged_prefill
from engines.weights.random import prompt

pytestmark = pytest.mark.usefixtures("plainly_compiled")

LIMIT = 7
LENGTHS = np.array([3, 7, 1, 4, 7, 2, 5, 6], np.int32)


plan_of = partial(build_plan, cache_len=LIMIT + 1)


def prefilled(plan: Plan, packed: bool):
    """Weights, tokens, and what the prefill returns."""
    mesh = mesh_of(plan.mesh_shape)
    weights, cache = load_parameters(plan, mesh, 0), make_cache(plan, mesh)
    tokens = prompt(plan.model, plan.batch_size, LIMIT, 0)
    lengths = LENGTHS[: plan.batch_size]
    rows, packing = pack(plan, tokens, lengths) if packed else (tokens, ())
    last = lengths - 1 + (packing.starts if packed else 0)
    return weights, tokens, make_ragged_prefill(plan, mesh, LIMIT, packing=packing)(weights, cache, rows, last)


def error(plan: Plan, tokens: np.ndarray, scores) -> float:
    """The worst relative error of any sequence's logits after its own last token."""
    lengths, size = LENGTHS[: plan.batch_size], plan.model.vocab_size
    return max(
        relative_error(plan.model, tokens[[number]], (length - 1,), np.asarray(scores)[None, [number], :size])
        for number, length in enumerate(lengths)
    )


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        (("palm", (1, 1, 1), "ws_1d", "heads"), {"prefill": PrefillOptions(attention="blockwise", block=3)}),
        (("gpt", (2, 2, 2), "ws_2d", "heads"), {"collectives": "throughput"}),
        (("llama", (2, 2, 2), "ws_2d", "batch"), {"batch_size": 4}),
        (("gpt", (2, 2, 2), "wg_x", "batch"), {}),
        (("palm", (2, 2, 2), "wg_xyz", "batch"), {}),
    ],
)
def test_packed_rows_have_every_sequences_logits(layout, changes):
    plan = plan_of(*layout, **changes)
    _, tokens, (_, scores, _) = prefilled(plan, packed=True)
    assert error(plan, tokens, scores) < 1e-5


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        (("llama", (2, 2, 2), "ws_2d", "batch"), {"batch_size": 4}),
        (("gpt", (1, 2, 4), "ws_1d", "heads"), {"partitioner": "gspmd"}),
    ],
)
def test_padded_rows_have_them_too(layout, changes):
    plan = plan_of(*layout, **changes)
    _, tokens, (_, scores, _) = prefilled(plan, packed=False)
    assert error(plan, tokens, scores) < 1e-5


@pytest.mark.parametrize("kv_dtype", ["float32", "int8"])
def test_packed_prompts_are_in_every_sequences_cache(kv_dtype):
    plan = plan_of("llama", (2, 2, 2), "ws_2d", "batch", batch_size=4, kv_dtype=kv_dtype)
    caches = []
    for packed in (True, False):
        (cache,) = prefilled(plan, packed)[2][2]
        # A folded cache's rows are each chip's sequences' slots; here a chip has one sequence.
        whole = {name: np.asarray(each, np.float32) for name, each in cache.items()}
        caches.append({name: each.reshape(each.shape[0], 4, -1, *each.shape[3:]) for name, each in whole.items()})
    for name in caches[0]:
        one, other = (each[name] for each in caches)
        assert np.abs(other[:, :, :, 0]).max() > 0
        for number, length in enumerate(LENGTHS[:4]):
            allowed = 1 if name in "kv" and kv_dtype == "int8" else 1e-5
            assert np.abs(one[:, number, :, :length] - other[:, number, :, :length]).max() <= allowed


def test_a_packed_sequence_is_decoded_from_its_cache():
    plan = plan_of("palm", (1, 1, 1), "ws_1d", "heads")
    weights, tokens, (first, _, cache) = prefilled(plan, packed=True)
    _, steps, _ = make_decode(plan, mesh_of((1, 1, 1)), 1)(weights, cache, first, np.int32(LIMIT))
    # Two of the sequences have the whole length: their next position is the cache's.
    for number in np.flatnonzero(LENGTHS == LIMIT):
        fed = np.append(tokens[number], np.asarray(first)[number])[None]
        output = np.asarray(steps)[:, [number], : plan.model.vocab_size]
        assert relative_error(plan.model, fed, (LIMIT,), output) < 1e-5


def test_packing_by_hand():
    # Two shards of attention's batch: two rows of two sequences, 3 + 2 and 1 + 4 tokens wide.
    plan = plan_of("palm", (2, 1, 1), "wg_x", "heads", batch_size=4)
    tokens = np.arange(16, dtype=np.int32).reshape(4, 4)
    rows, packing = pack(plan, tokens, np.array([3, 1, 1, 4], np.int32))
    assert rows.tolist() == [[0, 1, 2, 4, 0], [8, 12, 13, 14, 15]]
    assert packing.first.tolist() == [[0, 0, 0, 3, 4], [0, 1, 1, 1, 1]]
    assert packing.starts.tolist() == [0, 3, 0, 1]
    assert np.asarray(packing.ids(5)).tolist() == [[0, 1, 2, 0, 0], [0, 0, 1, 2, 3]]


@given(
    lengths=st.lists(st.integers(1, 30), min_size=4, max_size=4), rows=st.sampled_from([1, 2]), size=st.integers(1, 9)
)
def test_blocks_that_the_compiler_knows_hold_every_key_that_some_row_sees(lengths, rows, size):
    plan = plan_of("palm", (rows, 1, 1), "wg_x" if rows > 1 else "ws_1d", "heads", batch_size=4)
    _, packing = pack(plan, np.zeros((4, 30), np.int32), np.asarray(lengths, np.int32))
    width = packing.first.shape[1]
    for first in packing.first:
        begins, ends = Causal(0, jnp.asarray(first), None, packing.least).key_blocks(size, width, size, width)
        assert isinstance(begins, np.ndarray)
        for query in range(width):
            assert begins[query // size] * size <= first[query]
            assert query < ends[query // size] * size

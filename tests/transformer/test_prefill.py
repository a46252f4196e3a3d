from dataclasses import replace

import jax
import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.plans import mesh_of
from builders.plans import plan_of as build_plan
from partitioned_case import errors as errors_of

from engines.core.errors import InvalidRequest
from engines.transformer.layers.kv_cache import abstract_cache
from engines.transformer.options import PrefillOptions
from engines.transformer.programs import load_parameters, make_prefill
from engines.weights.random import prompt

pytestmark = pytest.mark.slow

TIME = 11
STEPS = 2
LAYOUTS = [
    ("palm", (1, 1, 1), "ws_1d", "heads", {}),
    ("palm", (2, 2, 2), "ws_1d", "batch", {}),
    ("gpt", (2, 2, 2), "ws_2d", "heads", {"collectives": "throughput"}),
    ("llama", (2, 2, 2), "ws_2d", "batch", {"batch_size": 4}),
    ("falcon", (2, 2, 2), "wg_xy", "heads", {}),
    ("palm", (2, 2, 2), "wg_xyz", "batch", {}),
    ("gpt", (1, 2, 4), "wg_x", "heads", {"partitioner": "gspmd"}),
]


def name_of(layout) -> str:
    model, _, ffn_layout, attn_sharding, changes = layout
    return "-".join([model, ffn_layout, attn_sharding, *map(str, changes.values())])


def plan_of(model, shape, ffn_layout, attn_sharding, changes, **options):
    settings = {"cache_len": TIME + STEPS, "prefill": PrefillOptions(**options), **changes}
    plan = build_plan(model, shape, ffn_layout, attn_sharding, **settings)
    plan.prefill.check(TIME)
    return plan


def errors(plan):
    return errors_of(plan, TIME, STEPS)


@pytest.mark.parametrize("layout", [LAYOUTS[each] for each in (2, 4, 6)], ids=name_of)
def test_in_chunks(layout):
    assert max(errors(plan_of(*layout, chunk=4))) < 1e-5


@pytest.mark.parametrize("chunk", [1, 5])
def test_chunks_of_any_length(chunk):
    assert max(errors(plan_of(*LAYOUTS[0], chunk=chunk, attention="blockwise", block=3))) < 1e-5


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("layout", LAYOUTS[1:], ids=name_of)
def test_after_a_shared_prefix(layout):
    assert max(errors(plan_of(*layout, prefix=6))) < 1e-5


@pytest.mark.parametrize(
    "reading",
    [{"prefix": 10}, {"prefix": 7, "chunk": 2, "attention": "blockwise", "block": 3}],
)
def test_prefixes_in_chunks_and_blocks(reading):
    assert max(errors(plan_of(*LAYOUTS[3], **reading))) < 1e-5


@pytest.mark.parametrize("attn_sharding", ["heads", "batch"])
def test_a_prefix_is_kept_once(attn_sharding):
    model = small_model(num_heads=8, num_kv_heads=8, head_dim=4, d_model=64)
    plan = replace(plan_of("palm", (2, 2, 2), "ws_2d", attn_sharding, {}), model=model, batch_size=64, cache_len=100)
    mesh = mesh_of((2, 2, 2))

    def elements(plan):
        return sum(np.prod(each.sharding.shard_shape(each.shape)) for each in abstract_cache(plan, mesh)[0].values())

    # k and v of 2 layers, 8 heads of 4: 64 sequences of 100 positions over 8 chips.
    assert elements(plan) == 2 * 2 * 8 * 4 * 64 * 100 / 8
    shared = elements(replace(plan, prefill=PrefillOptions(prefix=90)))
    # Ten positions are each sequence's; the prefix is one sequence's, on every chip all the heads that it attends with.
    heads = 1 if attn_sharding == "heads" else 8
    assert shared == 2 * 2 * 4 * (8 * 64 * 10 / 8 + heads * 90)


def test_all_sequences_begin_alike():
    model = MODELS["palm"]
    plain, shared = (prompt(model, 5, 9, 0, each) for each in (0, 4))
    assert np.array_equal(shared[0], plain[0])
    assert np.array_equal(shared[:, 4:], plain[:, 4:])
    assert (shared[:, :4] == plain[0, :4]).all()
    assert not (plain[:, :4] == plain[0, :4]).all()


def test_a_prompt_longer_than_the_cache_is_refused_before_it_is_compiled():
    plan = plan_of(*LAYOUTS[0])
    tokens = jax.ShapeDtypeStruct((8, TIME + STEPS + 1), np.int32)
    mesh = mesh_of(plan.mesh_shape)
    with pytest.raises(InvalidRequest, match="input_len=14: must be ≤ cache_len=13"):
        make_prefill(plan, mesh).lower(load_parameters(plan, mesh, 0), abstract_cache(plan, mesh), tokens)


def test_a_prefix_before_weights_that_circulate():
    assert max(errors(plan_of("palm", (2, 2, 2), "wg_xy", "heads", {"collectives": "oneway"}, prefix=4))) < 1e-5


@pytest.mark.parametrize(
    ("reading", "says"),
    [
        ({"prefix": 11}, "engine.shared_prefix=11: .*input_len=11"),
        ({"prefix": -1}, "engine.shared_prefix=-1"),
        ({"chunk": 0}, "engine.prefill_chunk=0"),
    ],
)
def test_what_cannot_be_read(reading, says):
    with pytest.raises(InvalidRequest, match=says):
        PrefillOptions(**reading).check(11)

"""The ways of a TPU through experts, on this machine's devices: nothing is dropped, whatever a router does."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders.models import moe_model
from builders.plans import mesh_of, plan_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P
from partitioned_case import errors
from test_experts import loop

from engines.transformer.comm.dispatch import RaggedExchange, arrivals
from engines.transformer.comm.volume import layer_transfers
from engines.transformer.layers import expert_ways, experts
from engines.transformer.layers.expert_rows import room_for
from engines.transformer.params.parameters import make_parameters
from engines.transformer.params.tree import only_layer

WAYS = ("all", "hit", "turns", "ragged")


def ragged_all_to_all(operand, output, held, sizes, arrived, _received, *, axis_name):
    """What ``lax.ragged_all_to_all`` is defined to do, of gathered operands."""
    rows, held, sizes, arrived = (lax.all_gather(each, axis_name) for each in (operand, held, sizes, arrived))
    me, place = lax.axis_index(axis_name), jnp.arange(len(output))[:, None]
    offset = place - arrived[:, me]
    here = (offset >= 0) & (offset < sizes[:, me])
    chip = here.argmax(1)
    source = held[chip, me] + jnp.take_along_axis(offset, chip[:, None], 1)[:, 0]
    return jnp.where(here.any(1)[:, None], rows[chip, jnp.clip(source, 0, rows.shape[1] - 1)], output)


@pytest.fixture(scope="module", autouse=True)
def _as_on_a_tpu(plainly_compiled):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lax, "platform_dependent", lambda *a, default=None, tpu=None, **_: (tpu or default)(*a))
        patch.setattr(lax, "ragged_all_to_all", ragged_all_to_all)
        yield


@settings(deadline=None, max_examples=4)
@given(st.integers(1, 40), st.integers(1, 9), st.data(), st.sampled_from([0.0, 5.0]))
def test_every_way_equals_a_loop_over_experts(tokens: int, count: int, data: Any, skew: float) -> None:
    k = data.draw(st.integers(1, count))
    model = moe_model(num_experts=count, experts_per_token=k, num_layers=1)
    plan = plan_of(model, batch_size=tokens, unrolled=True)
    w = only_layer(make_parameters(plan, mesh_of((1, 1, 1)), 0).layers[0]).experts
    assert w is not None
    x = np.random.default_rng(tokens).normal(size=(tokens, 32)) + skew * np.random.default_rng(0).normal(size=32)
    x = x.astype(np.float32)
    chosen = experts.route(plan, w, x)
    wanted = loop(model, x.astype(np.float64), np.asarray(chosen.experts), np.asarray(chosen.weights), None)
    for way in WAYS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(expert_ways, "way_of", lambda *_, way=way: way)
            # So little room that an expert's rows take several turns.
            patch.setattr(expert_ways, "room_for", lambda _mean, most: min(4, most))
            found = jax.jit(lambda each: experts.mixture(plan, w, each))(x)
        assert np.allclose(found, wanted, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(wanted).max())), way


@pytest.mark.parametrize(
    ("way", "keys"),
    [
        ("turns", {"ffn_layout": "ws_2d", "expert_axes": "y", "expert_dispatch": "all_to_all"}),
        ("hit", {"ffn_layout": "ws_2d", "expert_axes": "z"}),
    ],
)
def test_in_several_turns_on_eight_chips(monkeypatch: pytest.MonkeyPatch, way: str, keys: dict[str, Any]) -> None:
    monkeypatch.setattr(expert_ways, "way_of", lambda *_: way)
    # Too little room for a turn of the exchange and of an expert, so that there are several.
    for place in (expert_ways, experts):
        monkeypatch.setattr(place, "room_for", lambda _mean, most: min(2, most))
    assert max(errors(plan_of(moe_model(num_layers=1), (2, 2, 2), **keys))) < 2e-6


@pytest.mark.parametrize("mean", [0.5, 1, 4, 16, 64, 256])
def test_balanced_rows_need_one_turn(mean: float) -> None:
    room = room_for(mean, 10**6)
    more = sum(math.exp(n * math.log(mean) - mean - math.lgamma(n + 1)) for n in range(room + 1, room + 200))
    assert more < 1e-6
    assert room < mean + 5 * mean**0.5 + 20
    assert room_for(mean, 3) == 3


def test_columns_summed_inside_an_expert_are_those_of_the_rows_multiplied() -> None:
    # Experts over y: x splits E of an expert, z its F, and 4 experts of 64 columns, twice, are on each chip.
    plan = plan_of(moe_model(), (2, 2, 2), "ws_2d", batch_size=8, expert_axes="y")
    wanted = {"all": 4 * 8, "turns": 4 * 8, "hit": 4 * 8, "ragged": 2 * 8}  # 8 tokens hit 7.2 of 8 experts
    for way, rows in wanted.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(expert_ways, "way_of", lambda *_, way=way: way)
            found = [each for each in layer_transfers(plan, 1, ragged=True) if each.what == "experts.in"]
        summed = [each.payload_bytes for each in found if each.kind == "reduce-scatter"]
        assert summed == [rows * 2 * 64 / 2 * 4]


ROOM, ROWS, EXPERTS = 5, 12, 8


@pytest.fixture(scope="module")
def exchanged() -> Any:
    """(arrivals of every turn, what came back) of the rows of four chips for two experts each."""
    mesh = jax.make_mesh((4,), ("x",), devices=jax.devices("cpu")[:4], axis_types=(jax.sharding.AxisType.Auto,))
    most = 4 * ROWS

    def chip(rows: Any, sizes: Any) -> Any:
        exchange = RaggedExchange(arrivals(sizes, ("x",)), ("x",), ROOM, most)
        found, back = [], jnp.zeros_like(rows)
        for turn in range(-(-most // ROOM)):
            there = exchange.send(rows, jnp.int32(turn))
            found.append(jnp.concatenate([exchange.experts(jnp.int32(turn))[:, None], there], 1))
            back = exchange.send_back(there, jnp.int32(turn), back)
        assert exchange.turns is not None
        return jnp.stack(found)[None], back, exchange.turns[None]

    return jax.jit(jax.shard_map(chip, mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=False))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, EXPERTS - 1), min_size=ROWS, max_size=ROWS), min_size=4, max_size=4))
@example([[0] * ROWS] * 4)
def test_an_exchange_in_turns_loses_no_row(exchanged: Any, wanted: list[list[int]]) -> None:
    chosen = np.sort(np.array(wanted), 1)
    sizes = np.stack([np.bincount(each, minlength=EXPERTS) for each in chosen]).astype(np.int32)
    rows = np.arange(1, 4 * ROWS + 1, dtype=np.int32).reshape(-1, 1)
    arrived, back, turns = exchanged(rows, sizes.reshape(-1))
    assert np.array_equal(back, rows)
    for chip, mine in enumerate(np.asarray(arrived)):
        on = np.flatnonzero(chosen.ravel() // 2 == chip)
        assert turns[chip] == max(1, -(-np.bincount(chosen.ravel() // 2).max() // ROOM))
        got = mine.reshape(-1, 2)
        assert np.array_equal(got[: len(on)], np.stack([chosen.ravel()[on] % 2, rows[on, 0]], 1))
        assert (got[len(on) :, 0] == 2).all()

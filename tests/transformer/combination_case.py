"""Every combination of layout, attention sharding, block and collective variant, as small programs quickly compiled.

The whole product takes minutes of compilation: each number format is a file of its own, so that they run side by side.
"""

import functools
from itertools import product

import jax
import numpy as np
from compiling import plainly
from partitioned_case import STEPS, TIME, mesh_of, plan_of, relative_error, small_model

from engines.core.layout import FFN_LAYOUTS
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_decode, make_prefill
from engines.weights.random import prompt

MESH = (2, 2, 2)
VARIANTS = ["plain", "oneway", "throughput", "latency"]
LAYOUTS = [name for name in FFN_LAYOUTS if name != "auto"]
BLOCKS = {
    "parallel": small_model(),
    "serial": small_model(
        block="serial", activation="gelu", norm="rmsnorm", num_kv_heads=2, norms_per_layer=2, tied_embedding=False
    ),
}
COMBINATIONS = list(product(LAYOUTS, ["heads", "batch"], BLOCKS, VARIANTS))
PREFILLED = {each for places, each in zip(np.ndindex(5, 2, 2, 4), COMBINATIONS, strict=True) if sum(places) % 2 == 0}
"""A chessboard of them: those whose prefill is compared in float32 and bfloat16 and whose decode in int8, and not the
other way round."""


def combined(ffn_layout: str, attn_sharding: str, block: str, collectives: str, **formats) -> Plan:
    return plan_of(BLOCKS[block], MESH, ffn_layout, attn_sharding, collectives=collectives, **formats)


@functools.cache
def _mesh():
    return mesh_of(MESH)


def error(plan: Plan, *, prefill: bool) -> float:
    return prefill_error(plan) if prefill else decode_error(plan)


def prefill_error(plan: Plan) -> float:
    """Of the logits of the prompt's last position."""
    weights, cache, tokens = load_parameters(plan, _mesh(), 0), make_cache(plan, _mesh()), _prompt(plan)
    program = make_prefill(plan, _mesh()).lower(weights, cache, tokens).compile(plainly())
    _, scores, _ = program(weights, cache, tokens)
    output = np.asarray(scores)[None, :, : plan.model.vocab_size]
    return relative_error(plan.model, tokens, (TIME - 1,), output)


def decode_error(plan: Plan) -> float:
    """Of the logits of every step from the first token on, each of which reads what those before it cached."""
    weights, cache, first = load_parameters(plan, _mesh(), 0), make_cache(plan, _mesh()), _prompt(plan)[:, 0]
    program = make_decode(plan, _mesh(), STEPS).lower(weights, cache, first, np.int32(0)).compile(plainly())
    tokens, scores, _ = program(weights, cache, first, np.int32(0))
    fed = np.concatenate([first[:, None], np.asarray(tokens).T[:, :-1]], axis=1)
    output = np.asarray(scores)[..., : plan.model.vocab_size]
    return relative_error(plan.model, fed, tuple(range(STEPS)), output)


def _prompt(plan: Plan) -> np.ndarray:
    return prompt(plan.model, plan.batch_size, TIME, 0)


def buffers(arrays: dict[str, jax.Array]) -> dict[str, list[int]]:
    """Where each device's part of every array lies."""
    return {
        name: [part.data.unsafe_buffer_pointer() for part in each.addressable_shards] for name, each in arrays.items()
    }

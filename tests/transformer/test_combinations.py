"""Every combination of layout, attention sharding, block and collective variant, as small programs in three formats."""

import functools
from itertools import combinations, product

import numpy as np
import pytest
from builders.models import small_model
from builders.plans import mesh_of, plan_of
from partitioned_case import STEPS, TIME, relative_error

from engines.core.layout import FFN_LAYOUTS
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_decode, make_prefill
from engines.weights.random import prompt

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

MESH = (2, 2, 2)
SHARDINGS = ["heads", "batch"]
VARIANTS = ["plain", "oneway", "throughput", "latency"]
LAYOUTS = [name for name in FFN_LAYOUTS if name != "auto"]
BLOCKS = {
    "parallel": small_model(),
    "serial": small_model(
        block="serial", activation="gelu", norm="rmsnorm", num_kv_heads=2, norms_per_layer=2, tied_embedding=False
    ),
}
AXES = (LAYOUTS, SHARDINGS, list(BLOCKS), VARIANTS)
FORMATS = {
    "float32": {},
    "bfloat16": {"weight_dtype": "bfloat16", "act_dtype": "bfloat16", "kv_dtype": "bfloat16"},
    "int8": {"weight_dtype": "int8", "act_dtype": "float32", "kv_dtype": "float32"},
}


CASES = {
    each: (list(FORMATS)[sum(at) % 3], sum(at[1:]) % 2 == 0)
    for each, at in zip(product(*AXES), np.ndindex(*map(len, AXES)), strict=True)
}
"""The number format in which a combination is compared, and whether its prefill or its decode."""


def test_any_two_choices_are_compared_in_every_format_and_in_prefill_and_decode():
    for first, second in combinations(range(len(AXES)), 2):
        met = {(each[first], each[second], of) for each, (name, prefill) in CASES.items() for of in (name, prefill)}
        assert len(met) == len(AXES[first]) * len(AXES[second]) * (len(FORMATS) + 2), (first, second)


def error(combination: tuple[str, str, str, str], number_format: str, *, prefill: bool) -> float:
    """The relative error of the prefill's logits, or of those of every decode step."""
    ffn_layout, attn_sharding, block, collectives = combination
    formats = FORMATS[number_format]
    plan = plan_of(BLOCKS[block], MESH, ffn_layout, attn_sharding, collectives=collectives, **formats)
    return prefill_error(plan) if prefill else decode_error(plan)


def prefill_error(plan: Plan) -> float:
    """Of the logits of the prompt's last position."""
    weights, cache, tokens = load_parameters(plan, _mesh(), 0), make_cache(plan, _mesh()), _prompt(plan)
    program = make_prefill(plan, _mesh()).lower(weights, cache, tokens).compile()
    _, scores, _ = program(weights, cache, tokens)
    output = np.asarray(scores)[None, :, : plan.model.vocab_size]
    return relative_error(plan.model, tokens, (TIME - 1,), output)


def decode_error(plan: Plan) -> float:
    """Of the logits of every step from the first token on, each of which reads what those before it cached."""
    weights, cache, first = load_parameters(plan, _mesh(), 0), make_cache(plan, _mesh()), _prompt(plan)[:, 0]
    program = make_decode(plan, _mesh(), STEPS).lower(weights, cache, first, np.int32(0)).compile()
    tokens, scores, _ = program(weights, cache, first, np.int32(0))
    fed = np.concatenate([first[:, None], np.asarray(tokens).T[:, :-1]], axis=1)
    output = np.asarray(scores)[..., : plan.model.vocab_size]
    return relative_error(plan.model, fed, tuple(range(STEPS)), output)


@functools.cache
def _mesh():
    return mesh_of(MESH)


def _prompt(plan: Plan) -> np.ndarray:
    return prompt(plan.model, plan.batch_size, TIME, 0)


@functools.cache
def rounding(block: str, prefill: bool) -> float:
    """The error of int8 weights in one layout: rounding, and nothing of the layout."""
    return error(("ws_1d", "heads", block, "plain"), "int8", prefill=prefill)


@pytest.mark.thorough(every=5)
@pytest.mark.parametrize(
    "combination",
    [pytest.param(each, id="-".join(each), marks=pytest.mark.xdist_group(f"combinations-{each[1]}")) for each in CASES],
)
def test_every_combination_errs_by_its_number_format(combination):
    """And int8 weights by the same rounding in every layout."""
    number_format, prefill = CASES[combination]
    found = error(combination, number_format, prefill=prefill)
    if number_format == "float32":
        assert found < 1e-5
    else:
        assert 1e-4 < found < 0.03
    if number_format == "int8":
        assert found == pytest.approx(rounding(combination[2], prefill), abs=1e-5)

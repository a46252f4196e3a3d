"""Small models of each kind, and one partitioned run compared with the float32 single-device reference."""

import functools

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from engines.core.model import Model
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_decode, make_prefill
from engines.transformer.reference import reference_logits
from engines.weights.random import prompt

STEPS = 3
TIME = 5


def small_model(**changes) -> Model:
    base = {
        "name": "small",
        "num_layers": 2,
        "d_model": 32,
        "d_ff": 64,
        "num_heads": 4,
        "num_kv_heads": 1,
        "head_dim": 8,
        "vocab_size": 61,
        "block": "parallel",
        "activation": "swiglu",
        "position": "rotary",
        "norm": "layernorm",
        "norms_per_layer": 1,
        "tied_embedding": True,
        "max_positions": 64,
        "published_params": 1.0,
        "mfu_params": 1.0,
        "source": "made for this test",
    }
    return Model(**{**base, **changes})


MODELS = {
    "palm": small_model(),
    "gpt": small_model(
        block="serial",
        activation="gelu_tanh",
        position="learned",
        num_kv_heads=4,
        norms_per_layer=2,
        attn_bias=True,
        ffn_bias=True,
        norm_bias=True,
    ),
    "llama": small_model(
        block="serial", norm="rmsnorm", num_heads=6, num_kv_heads=2, norms_per_layer=2, tied_embedding=False
    ),
    "falcon": small_model(
        norms_per_layer=2,
        num_heads=16,
        num_kv_heads=2,
        activation="gelu",
        rotary_dim=4,
        rotary_interleaved=True,
        tied_embedding=False,
        lm_head_bias=True,
        norm_bias=True,
    ),
    "no positions": small_model(position="none", norm="rmsnorm", num_heads=8, num_kv_heads=8),
}


def mesh_of(shape) -> Mesh:
    count = int(np.prod(shape))
    return jax.make_mesh(shape, ("x", "y", "z"), devices=jax.devices("cpu")[:count], axis_types=(AxisType.Auto,) * 3)


@functools.lru_cache(maxsize=256)
def _reference(model: Model, tokens: bytes, shape: tuple[int, int], positions: tuple[int, ...]) -> np.ndarray:
    return reference_logits(model, np.frombuffer(tokens, np.int32).reshape(shape), list(positions), 0)


def relative_error(model: Model, tokens: np.ndarray, positions: tuple[int, ...], output: np.ndarray) -> float:
    """max|output − reference| / max|reference| over logits [positions, batch, vocab]."""
    return error_of(reference(model, tokens, positions), output)


def reference(model: Model, tokens: np.ndarray, positions: tuple[int, ...]) -> np.ndarray:
    """Logits [positions, batch, vocab] in float32 on a single device, reckoned once for the same question."""
    return _reference(model, np.ascontiguousarray(tokens, np.int32).tobytes(), tokens.shape, positions)


def error_of(expected: np.ndarray, output: np.ndarray) -> float:
    assert np.abs(expected).max() > 0.1
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def plan_of(model: Model, shape, ffn_layout: str, attn_sharding: str, batch_size: int = 8, **formats) -> Plan:
    plan = Plan(
        model=model,
        mesh_shape=shape,
        ffn_layout=ffn_layout,
        attn_sharding=attn_sharding,
        batch_size=batch_size,
        cache_len=TIME + STEPS,
        **formats,
    )
    plan.check()
    return plan


def errors(plan: Plan) -> tuple[float, float]:
    """Relative error of prefill's logits and of those of every decode step."""
    model, mesh = plan.model, mesh_of(plan.mesh_shape)
    weights, cache = load_parameters(plan, mesh, 0), make_cache(plan, mesh)
    tokens = prompt(model, plan.batch_size, TIME, 0)
    first, scores, cache = make_prefill(plan, mesh)(weights, cache, tokens)
    generated, steps, _ = make_decode(plan, mesh, STEPS)(weights, cache, first, np.int32(TIME))
    fed = np.concatenate([tokens, np.asarray(first)[:, None], np.asarray(generated).T[:, :-1]], axis=1)
    assert np.array_equal(np.asarray(scores)[:, : model.vocab_size].argmax(1), first)
    assert np.array_equal(np.asarray(steps)[..., : model.vocab_size].argmax(2), generated)
    # The prompt's last position looks back alone: what comes behind it may stand there.
    expected = reference(model, fed, tuple(range(TIME - 1, TIME + STEPS)))
    return (
        error_of(expected[:1], np.asarray(scores)[None, :, : model.vocab_size]),
        error_of(expected[1:], np.asarray(steps)[..., : model.vocab_size]),
    )

"""One partitioned run of a small model, compared with the float32 single-device reference."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders.plans import mesh_of
from compiling import plainly, use_plain_reference

from engines.core.model import Model
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_decode, make_prefill
from engines.transformer.reference import reference_logits
from engines.weights.random import prompt

STEPS = 3
TIME = 5


@functools.lru_cache(maxsize=256)
def _reference(
    model: Model, tokens: bytes, shape: tuple[int, int], positions: tuple[int, ...], length: int | None
) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        use_plain_reference(patch)
        return reference_logits(model, np.frombuffer(tokens, np.int32).reshape(shape), list(positions), 0, length)


def relative_error(model: Model, tokens: np.ndarray, positions: tuple[int, ...], output: np.ndarray) -> float:
    """max|output − reference| / max|reference| over logits [positions, batch, vocab]."""
    return error_of(reference(model, tokens, positions), output)


def reference(model: Model, tokens: np.ndarray, positions: tuple[int, ...], length: int | None = None) -> np.ndarray:
    """Logits [positions, batch, vocab] in float32 on a single device, reckoned once for the same question."""
    return _reference(model, np.ascontiguousarray(tokens, np.int32).tobytes(), tokens.shape, positions, length)


def error_of(expected: np.ndarray, output: np.ndarray) -> float:
    assert np.abs(expected).max() > 0.1
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def errors(plan: Plan, time: int = TIME, steps: int = STEPS) -> tuple[float, float]:
    """Relative error of the logits of a prefill of ``time`` tokens, and of those of the last decode steps after it."""
    model, mesh = plan.model, mesh_of(plan.mesh_shape)
    weights, cache = load_parameters(plan, mesh, 0), make_cache(plan, mesh)
    tokens = prompt(model, plan.batch_size, time, 0, plan.prefill.prefix)
    first, scores, cache = run(make_prefill(plan, mesh), weights, cache, tokens)
    generated, logits, _ = run(make_decode(plan, mesh, steps), weights, cache, first, np.int32(time))
    fed = np.concatenate([tokens, np.asarray(first)[:, None], np.asarray(generated).T[:, :-1]], axis=1)
    scores, logits = (np.asarray(each)[..., : model.vocab_size] for each in (scores, logits))
    assert np.array_equal(scores.argmax(1), first)
    kept = len(logits)
    assert np.array_equal(logits.argmax(2), generated[-kept:])
    # The prompt's last position looks back alone: what comes behind it may stand there.
    positions = (time - 1, *range(time + steps - kept, time + steps))
    expected = reference(model, fed, positions, plan.cache_len)
    return error_of(expected[:1], scores[None]), error_of(expected[1:], logits)


def run(program: Any, *arguments: Any) -> Any:
    """What a jitted function returns, compiled plainly. One in which another is called has no options of its own."""
    if any(leaf.dtype in (jnp.int4, jnp.float4_e2m1fn) for leaf in jax.tree.leaves(arguments)):
        return program(*arguments)  # a compiled program mistakes the layout of 4-bit arrays
    return program.lower(*arguments).compile(plainly())(*arguments)

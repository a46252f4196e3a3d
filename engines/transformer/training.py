"""How a small model learns from text, alone or from a teacher (Hinton et al. 2015, arXiv 1503.02531).

The forward pass is the reference's, on one device in float32, so that what is learned is the model that engines run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from engines.core.errors import Unsupported
from engines.core.model import Model
from engines.transformer.reference import Weights, embedded, layer, output_logits
from engines.weights.random import Floats, Source, tensors, values


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """``steps`` of AdamW on ``batch_size`` random pieces of ``time`` tokens, the rate rising over a tenth of them and
    falling to 0 by a cosine.

    The loss is (1 − ``soft_share``)·cross-entropy with the text + ``soft_share``·T²·KL(teacher ‖ student) of logits
    divided by T = ``temperature``; without a teacher cross-entropy alone.
    """

    steps: int
    batch_size: int
    time: int
    learning_rate: float
    soft_share: float
    temperature: float
    seed: int


def trained(
    model: Model,
    ids: NDArray[np.int32],
    config: TrainingConfig,
    teacher: tuple[Model, Source] | None,
    told: Callable[[int, float], None],
) -> dict[str, Floats]:
    """Canonical tensors of ``model`` trained on the tokens ``ids``; ``told`` hears step and loss.

    Raises:
        Unsupported: optax is not installed.
    """
    try:
        import optax
    except ImportError:
        raise Unsupported("distill needs optax: pip install 'shardbench[distill]'") from None
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.steps // 10, config.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.01))
    weights = read_all(model, config.seed)
    held = None if teacher is None else (teacher[0], read_all(*teacher))
    state = optimizer.init(weights)

    @jax.jit
    def step(weights: Weights, state: Any, pieces: Array) -> tuple[Weights, Any, Array]:
        loss, slopes = jax.value_and_grad(partial(loss_of, model, config, held))(weights, pieces)
        changes, state = optimizer.update(slopes, state, weights)
        return optax.apply_updates(weights, changes), state, loss

    draws = np.random.default_rng(config.seed)
    for number in range(config.steps):
        starts = draws.integers(0, len(ids) - config.time, config.batch_size)
        pieces = ids[starts[:, None] + np.arange(config.time + 1)]
        weights, state, loss = step(weights, state, jnp.asarray(pieces))
        told(number, float(loss))
    return {name: np.asarray(each, np.float32) for name, each in weights.items()}


def loss_of(
    model: Model, config: TrainingConfig, teacher: tuple[Model, Weights] | None, weights: Weights, pieces: Array
) -> Array:
    """The mean loss of predicting each token of ``pieces`` [batch, time + 1] from those before it."""
    read, following = pieces[:, :-1], pieces[:, 1:]
    logits = forward(model, weights, read)
    hard = -jnp.take_along_axis(jax.nn.log_softmax(logits), following[..., None], -1).mean()
    if teacher is None:
        return hard
    theirs = jax.nn.log_softmax(jax.lax.stop_gradient(forward(*teacher, read)) / config.temperature)
    ours = jax.nn.log_softmax(logits / config.temperature)
    soft = config.temperature**2 * (jnp.exp(theirs) * (theirs - ours)).sum(-1).mean()
    return (1 - config.soft_share) * hard + config.soft_share * soft


def forward(model: Model, weights: Mapping[str, Array], tokens: Array) -> Array:
    """Logits [batch, time, vocabulary] at every position of ``tokens`` [batch, time]."""
    held = dict(weights)
    x = embedded(model, held, tokens)
    for number, kind in enumerate(model.layer_kinds):
        prefix = f"layers.{number}."
        own = {name.removeprefix(prefix): each for name, each in held.items() if name.startswith(prefix)}
        x = layer(model, kind, tokens.shape[1], own, x)
    outer = {name: each for name, each in held.items() if not name.startswith("layers.")}
    logits: Array = output_logits(model, outer, x)
    return logits


def read_all(model: Model, source: Source) -> Weights:
    """Every canonical tensor of the model, by name."""
    return {name: jnp.asarray(values(spec, source)) for name, spec in tensors(model).items()}

"""How much the parts of a model matter on a text: what pruning by activations keeps.

Run on one device in float32, by the reference. A head's score is the mean square of what it adds to the residual
stream; a column's that of its activation times the squared norm of its row of the output matrix (Wanda's score summed
over the row, Sun et al. 2023, arXiv 2306.11695); a layer's is 1 minus the mean cosine of its input and output (block
influence, Men et al. 2024, arXiv 2403.03853).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from engines.core.layer_kind import LayerKind
from engines.core.model import Model
from engines.transformer.reference import (
    Weights,
    attended_values,
    embedded,
    half_input,
    hidden_columns,
    layer,
    layer_weights,
    read_first,
)
from engines.weights.pruned.scores import LayerScores, by_unit, leads
from engines.weights.random import Source


def by_activation(model: Model, source: Source, tokens: NDArray[np.int32]) -> list[LayerScores]:
    """The scores of every layer over ``tokens`` [batch, time]."""
    x, found = embedded(model, read_first(model, source), tokens), []
    for number, kind in enumerate(model.layer_kinds):
        held = layer_weights(model, source, number)
        after = layer(model, kind, tokens.shape[1], held, x)
        heads, columns, cosine = _of_layer(model, kind, tokens.shape[1], held, x, after)
        by_lead = {lead: np.asarray(each, np.float64) for lead, each in columns.items()}
        found.append(LayerScores(by_unit(model, np.asarray(heads, np.float64)), by_lead, 1 - float(cosine)))
        x = after
    return found


@partial(jax.jit, static_argnums=(0, 1, 2))
def _of_layer(
    model: Model, kind: LayerKind, length: int, w: Weights, x: Array, after: Array
) -> tuple[Array, dict[str, Array], Array]:
    """Of heads, of columns by feed-forward, and the mean cosine of the layer's input and output."""
    read = half_input(model, w, "attn", x)
    taken = attended_values(model, kind, length, w, read)
    added = jnp.einsum("bthd,hde->bthe", taken, w["o"])
    # A serial feed-forward reads the stream after attention; the columns that a text uses differ little by it.
    fed = half_input(model, w, "ffn", x if model.block == "parallel" else x + added.sum(2) * model.residual_scale)
    columns = {}
    for lead in leads(w):
        own = {name.removeprefix(lead): each for name, each in w.items() if name.startswith(lead)}
        hidden = partial(hidden_columns, model, x=fed)
        made = jax.vmap(hidden)(own) if lead == "experts." else hidden(own)
        columns[lead] = jnp.square(made).mean((-3, -2)) * jnp.square(own["wo"]).sum(-1)
    cosine = (x * after).sum(-1) / (jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(after, axis=-1))
    return jnp.square(added).mean((0, 1, 3)), columns, cosine.mean()

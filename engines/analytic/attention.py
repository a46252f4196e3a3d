"""What attention sees, multiplies and caches, whatever splits it: windows, and keys and values from latent vectors.

H query heads of D dimensions; a latent vector has R elements, of which every head makes keys of D − r and values of V,
and the key that all heads share r (DeepSeek-V2, arXiv 2405.04434, section 2.1). Layers with a window and without are
counted together, by their mean.
"""

import numpy as np

from engines.analytic.grid import Bools, Floats, Grid
from engines.core.layout import LATENT_ATTENTIONS


def seen_in_decode(grid: Grid) -> Floats:
    """Mean keys that a token sees, over the ``steps`` after ``input_len`` cached tokens and over layers.

    input_len + (steps + 1)/2 of all keys. In a sliding window W those up to W; in chunks of W those of its own. Of
    several tokens of a pass each sees those before it, (pass_tokens − 1)/2 on average.
    """
    whole = grid.input_len + (grid.steps + 1) / 2 + (grid.pass_tokens - 1) / 2
    if not np.any(grid.window_layers):
        return whole
    last = grid.input_len + np.maximum(grid.steps, 1)
    near = (_pairs_before(grid, last) - _pairs_before(grid, grid.input_len)) / np.maximum(grid.steps, 1)
    return _mixed(grid, near, whole)


def seen_in_prefill(grid: Grid) -> Floats:
    """Keys that a prompt's token is counted with: all L of the prompt, or W of a window, as a mean over layers.

    Of packed prompts a token's L is E[L²]/E[L] in the mean, so that B·E[L] tokens make B·E[L²] pairs. Causal attention
    does half of that; which part of the rate it reaches then is the constant attention_matmul's.
    """
    if not np.any(grid.window_layers):
        return grid.prompt_seen
    return _mixed(grid, np.minimum(grid.prompt_seen, grid.window), grid.prompt_seen)


def held(grid: Grid, context: Floats) -> Floats:
    """Tokens of a sequence that a layer's cache holds of ``context``, as a mean over layers: a window keeps W."""
    if not np.any(grid.window_layers):
        return context
    return _mixed(grid, np.minimum(context, grid.window), context)


def _mixed(grid: Grid, near: Floats, whole: Floats) -> Floats:
    share = grid.window_layers / grid.layers
    return np.asarray(share * near + (1 - share) * whole)


def _pairs_before(grid: Grid, position: Floats) -> Floats:
    """Pairs of a query and a key in a window, of the queries before ``position``: as :func:`seen_pairs` of the core."""
    window = np.maximum(grid.window, 1.0)
    inside = np.minimum(position, window)
    sliding = inside * (inside + 1) / 2 + (position - inside) * window
    chunks = np.floor(position / window)
    rest = position - chunks * window
    in_chunks = chunks * window * (window + 1) / 2 + rest * (rest + 1) / 2
    return np.asarray(np.where(grid.chunked, in_chunks, sliding))


def absorbs(grid: Grid, length: Floats, keys: Floats) -> Bools:
    """Whether ``length`` queries of a sequence go to the latent space, rather than ``keys`` latents to every head.

    Either multiplies something of each head by both up-projections: every query, or every key. A pair of query and key
    then takes 2R + r products in the latent space and D + V out of it. Where it is left open: the fewer products.
    """
    more = 2 * grid.kv_latent + grid.rotated - grid.head_dim - grid.value_dim
    made = grid.kv_latent * (grid.head_dim - grid.rotated + grid.value_dim)
    fewer = length * keys * more < (keys - length) * made
    absorbed, expanded = (LATENT_ATTENTIONS.index(each) for each in ("absorbed", "expanded"))
    asked = np.where(grid.latent_form == absorbed, True, np.where(grid.latent_form == expanded, False, fewer))
    return np.asarray(grid.latent & asked)


def query_width(grid: Grid, absorbed: Bools) -> Floats:
    """Elements of a query of one head as it meets keys: D, or R + r in the latent space."""
    return np.where(absorbed, grid.kv_latent + grid.rotated, grid.head_dim)


def value_width(grid: Grid, absorbed: Bools) -> Floats:
    """Elements of a weighted sum of one head: D, V of latent attention, or R in the latent space."""
    return np.where(absorbed, grid.kv_latent, output_width(grid))


def output_width(grid: Grid) -> Floats:
    """Elements of a head that the output projection reads."""
    return np.where(grid.latent, grid.value_dim, grid.head_dim)


def query_columns(grid: Grid, heads: Floats) -> Floats:
    """Columns of what a token's queries are made of: H·D, or the queries' latent vector."""
    return np.where(grid.q_latent > 0, grid.q_latent, heads * grid.head_dim)


def up_params(grid: Grid, heads: Floats) -> Floats:
    """Elements of the matrices from latent vectors to ``heads``: R·(D − r + V) each, and the queries' own."""
    made = grid.kv_latent * (grid.head_dim - grid.rotated + grid.value_dim)
    return np.where(grid.latent, heads * (made + grid.q_latent * grid.head_dim), 0.0)


def cached_width(grid: Grid) -> Floats:
    """Elements of a latent vector and the key that all heads share."""
    return grid.kv_latent + grid.rotated

"""The closed forms of Pope et al. 2022 as printed in the paper: section 3 and appendix A.

Elements, not bytes, and bw in elements per second; (k − 1)/k is taken as 1 and every collective has the same bw. The
engine's own forms (:mod:`engines.analytic.tpu_torus`) reduce to these without their refinements, which tests check.
T = B·L tokens; E, F the model's widths; n = X·Y·Z chips.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from engines.analytic.grid import Floats
from engines.core.chip import Chip
from engines.core.model import Model


def ws_1d_elements(tokens: ArrayLike, d_model: float) -> Floats:
    """Weight-stationary 1D, appendix A.2.1: one all-gather and one reduce-scatter of T·E, 2·T·E whatever n."""
    return np.asarray(2.0 * np.asarray(tokens, dtype=float) * d_model)


def ws_2d_elements(tokens: ArrayLike, d_model: float, d_ff: float, x: float, yz: float) -> Floats:
    """Weight-stationary 2D, appendix A.2.1: 2·T·(E/X + F/(YZ)), over both pairs of gather and scatter."""
    return np.asarray(2.0 * np.asarray(tokens, dtype=float) * (d_model / x + d_ff / yz))


def wg_elements(tokens: ArrayLike, d_model: float, d_ff: float, chips: float, gathered: ArrayLike) -> Floats:
    """Weight-gathered over N = ``gathered`` of n chips, appendix A.2.2: 2·E·F·N/n of weights and 2·T·E/N."""
    shards = np.asarray(gathered, dtype=float)
    return np.asarray(2 * d_model * d_ff * shards / chips + 2 * np.asarray(tokens, dtype=float) * d_model / shards)


def best_x(chips: float, d_model: float, d_ff: float) -> float:
    """X that makes ws_2d least: sqrt(n·E/F), appendix A.2.1; sqrt(n)/2 where F = 4E."""
    return float(np.sqrt(chips * d_model / d_ff))


def least_ws_2d_elements(tokens: ArrayLike, d_model: float, d_ff: float, chips: float) -> Floats:
    """ws_2d at that X: 4·T·sqrt(E·F/n), which is 8·T·E/sqrt(n) where F = 4E."""
    return np.asarray(4.0 * np.asarray(tokens, dtype=float) * np.sqrt(d_model * d_ff / chips))


def best_gathered(tokens: ArrayLike, d_ff: float, chips: float) -> Floats:
    """N that makes a weight-gathered layout least: sqrt(T·n/F), appendix A.2.2."""
    return np.asarray(np.sqrt(np.asarray(tokens, dtype=float) * chips / d_ff))


def least_wg_elements(tokens: ArrayLike, d_model: float, d_ff: float, chips: float) -> Floats:
    """Weight-gathered at that N: 4·E·sqrt(T·F/n)."""
    return np.asarray(4.0 * d_model * np.sqrt(np.asarray(tokens, dtype=float) * d_ff / chips))


def chips_1d_to_2d(d_model: float, d_ff: float) -> float:
    """Chips from which ws_2d (at its best X) moves less than ws_1d: sqrt(n) > 2·sqrt(F/E), so n > 4·F/E.

    Appendix A.2.1 gives sqrt(n) > F/E, the same n = 16 at its F = 4E.
    """
    return 4 * d_ff / d_model


def tokens_wg_to_wg(d_ff: float, chips: float, fewer: float, more: float) -> float:
    """Tokens from which gathering over ``more`` chips moves less than over ``fewer``: F·N₁·N₂/n.

    Equating 2EF·N₁/n + 2TE/N₁ with the same for N₂.
    """
    return d_ff * fewer * more / chips


def tokens_ws_to_wg(d_model: float, d_ff: float, x: float, yz: float, gathered: float) -> float:
    """Tokens from which gathering over N chips moves less than ws_2d: E·F·N/n / (E/X + F/(YZ) − E/N).

    Infinite where ws_2d's volume grows no faster than the gathered layout's.
    """
    slope = d_model / x + d_ff / yz - d_model / gathered
    return float("inf") if slope <= 0 else d_model * d_ff * gathered / (x * yz) / slope


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeCurves:
    """Figure 3: elements that one feed-forward moves, over tokens, for each layout."""

    tokens: Floats
    elements: dict[str, Floats]


def figure_3(
    tokens: ArrayLike,
    d_model: float = 16384,
    d_ff: float = 65536,
    mesh_shape: tuple[int, int, int] = (4, 4, 4),
) -> VolumeCurves:
    """Communication volume of one feed-forward over batch in tokens, Figure 3 of the paper: X = Y = Z = 4."""
    x, y, z = mesh_shape
    chips = x * y * z
    batch = np.asarray(tokens, dtype=float)
    gathered = {"wg_x": x, "wg_xy": x * y, "wg_xyz": chips}
    return VolumeCurves(
        tokens=batch,
        elements={
            "ws_2d": ws_2d_elements(batch, d_model, d_ff, x, y * z),
            **{name: wg_elements(batch, d_model, d_ff, chips, shards) for name, shards in gathered.items()},
        },
    )


def max_context(
    model: Model, chip: Chip, *, num_chips: int, batch_size: int, attn_sharding: str, memory_fraction: float = 0.3
) -> float:
    """Longest context whose cache takes ``memory_fraction`` of the HBM, Table 1: arithmetic alone, bf16.

    A chip holds, for each token of the context, 2·layers·D elements for every sequence and key/value head that is its
    own: B sequences and ceil(H'/n) heads where a multihead model is cut over heads (H' = H padded to a multiple of n:
    48 to 64), all B sequences and one head where a multiquery model is cut over heads, B/n sequences over batch.
    """
    heads = np.ceil(model.num_heads / num_chips) if model.num_kv_heads == model.num_heads else 1.0
    sequences = batch_size / num_chips if attn_sharding == "batch" else batch_size
    per_token = 2 * 2 * model.num_layers * model.head_dim * heads * sequences
    return float(memory_fraction * (chip.hbm_bytes or np.nan) / per_token)

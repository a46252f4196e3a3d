"""The closed forms of Pope et al. 2022 as printed in the paper: section 3 and appendix A.

Elements, not bytes, and bw in elements per second; (k − 1)/k is taken as 1 and every collective has the same bw. The
engine's own forms (:mod:`engines.analytic.tpu_torus`) reduce to these without their refinements, which tests check.
T = B·L tokens; E, F the model's widths; n = X·Y·Z chips.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from engines.analytic.grid import Floats
from engines.core.chip import Chip
from engines.core.layout import LAYOUTS, axes_size
from engines.core.model import Model
from engines.core.volume import activation_payloads, gathered_weights

MeshShape = tuple[int, int, int]


def ws_1d_elements(tokens: ArrayLike, d_model: float) -> Floats:
    """Weight-stationary 1D, appendix A.2.1: one all-gather and one reduce-scatter of T·E, 2·T·E whatever n."""
    return _elements("ws_1d", {}, tokens, d_model, 0.0)


def ws_2d_elements(tokens: ArrayLike, d_model: float, d_ff: float, x: float, yz: float) -> Floats:
    """Weight-stationary 2D, appendix A.2.1: 2·T·(E/X + F/(YZ)), over both pairs of gather and scatter."""
    return _elements("ws_2d", {"x": x, "zy": yz}, tokens, d_model, d_ff)


def wg_elements(tokens: ArrayLike, d_model: float, d_ff: float, chips: float, gathered: ArrayLike) -> Floats:
    """Weight-gathered over N = ``gathered`` of n chips, appendix A.2.2: 2·E·F·N/n of weights and 2·T·E/N."""
    shards = np.asarray(gathered, dtype=float)
    return _elements("wg_x", {"x": shards, "zy": chips / shards, "xyz": chips}, tokens, d_model, d_ff)


def _elements(name: str, sizes: Mapping[str, Any], tokens: ArrayLike, d_model: float, d_ff: float) -> Floats:
    """The collectives of :mod:`engines.core.volume` for one feed-forward of two matrices, summed; chips by axes."""
    layout = LAYOUTS[name]

    def size(axes: str) -> Any:
        return sizes.get(axes, 1)

    columns = d_ff / size(layout.ffn)
    local = np.asarray(tokens, dtype=float) / size(layout.gathered)
    payloads = activation_payloads(layout, size, tokens=local, d_model=d_model, inward=columns, outward=columns)
    activations = sum(each.size for each in payloads if each.of == "residual" or each.axes)
    weights = 2 * gathered_weights(layout, size, d_model * d_ff) if layout.gathered else 0
    return np.asarray(weights + activations)


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


def gathered_chips(mesh_shape: MeshShape) -> dict[str, int]:
    """Over how many chips each weight-gathered layout gathers its weights on a torus X, Y, Z: N of every ``wg_*``."""
    return {each.name: axes_size(each.gathered, mesh_shape) for each in LAYOUTS.values() if each.gathered}


def layout_elements(layout: str, tokens: ArrayLike, d_model: float, d_ff: float, mesh_shape: MeshShape) -> Floats:
    """Elements that a chip sends in one feed-forward of any layout on a torus X, Y, Z."""
    cut = LAYOUTS[layout]
    sizes = {axes: axes_size(axes, mesh_shape) for axes in (cut.embed, cut.ffn, cut.gathered, "xyz")}
    return _elements(layout, sizes, tokens, d_model, d_ff)


def crossing_tokens(before: str, after: str, d_model: float, d_ff: float, mesh_shape: MeshShape) -> float | None:
    """Tokens from which ``after`` sends less than ``before`` on a torus X, Y, Z.

    None where the paper has no such crossing: into a weight-stationary layout, or none in tokens.
    """
    x, y, z = mesh_shape
    gathered = gathered_chips(mesh_shape)
    if after not in gathered:
        return None
    if before == "ws_2d":
        tokens = tokens_ws_to_wg(d_model, d_ff, x, y * z, gathered[after])
        return tokens if np.isfinite(tokens) else None
    if before in gathered:
        return tokens_wg_to_wg(d_ff, x * y * z, gathered[before], gathered[after])
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeCurves:
    """Figure 3: elements that a chip sends in one feed-forward, over tokens, for each layout."""

    tokens: Floats
    elements: dict[str, Floats]


def figure_3(
    tokens: ArrayLike,
    d_model: float = 16384,
    d_ff: float = 65536,
    mesh_shape: MeshShape = (4, 4, 4),
) -> VolumeCurves:
    """Communication volume of one feed-forward over batch in tokens, Figure 3 of the paper: X = Y = Z = 4."""
    batch = np.asarray(tokens, dtype=float)
    layouts = ("ws_2d", *gathered_chips(mesh_shape))
    return VolumeCurves(
        tokens=batch,
        elements={layout: layout_elements(layout, batch, d_model, d_ff, mesh_shape) for layout in layouts},
    )


def max_context(
    model: Model, chip: Chip, *, num_chips: int, batch_size: int, attn_sharding: str, memory_fraction: float = 0.3
) -> float:
    """Longest context whose cache takes ``memory_fraction`` of the HBM, Table 1: arithmetic alone, bf16.

    A chip holds, for each token of the context, 2·layers·D elements for every sequence and key/value head that is its
    own: B sequences and ceil(H'/n) heads where a multihead model is sharded over heads (H' = H padded to a multiple of
    n: 48 to 64), all B sequences and one head where a multiquery model is sharded over heads, B/n sequences over batch.
    """
    heads = np.ceil(model.num_heads / num_chips) if model.num_kv_heads == model.num_heads else 1.0
    sequences = batch_size / num_chips if attn_sharding == "batch" else batch_size
    per_token = 2 * 2 * model.num_layers * model.head_dim * heads * sequences
    return float(memory_fraction * (chip.hbm_bytes or np.nan) / per_token)

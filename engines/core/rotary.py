"""Rotary positions: which dimensions of a head turn, how fast, and how they stretch over longer texts."""

import math
from dataclasses import dataclass, field
from typing import Literal

from engines.core.extension import EXTENSION

RotaryScaling = Literal["linear", "llama3", "dynamic", "yarn", "long"]


@dataclass(frozen=True, kw_only=True)
class RotaryKeys:
    """Keys of a model about rotary positions (Su et al. 2021).

    ``rotary_dim`` of a head's dimensions turn, in halves or in ``rotary_interleaved`` pairs, pair i by
    ``rotary_base``^(−2i/dim) radians a position: the first ones, of a head of latent attention the last.
    ``rotary_scaling`` says how ``rotary_factor`` stretches them (:func:`stretched`); where it is null, ``linear``, or
    ``llama3`` beside ``rotary_original_positions``. ``rotary_low_factor`` and ``rotary_high_factor`` are the turns over
    the original positions below and above which a pair is stretched wholly and not at all (``llama3``; ``yarn`` calls
    them beta_slow and beta_fast, and rounds the pairs where they lie to whole ones if ``rotary_truncated``).
    ``rotary_attention_factor`` multiplies cosine and sine (``yarn``, ``long``). ``rotary_short_factors`` and
    ``rotary_long_factors`` (``long``) divide the speed of each pair, up to and beyond the original positions.
    ``rotary_window_base`` is the base in layers with a window, which are then not stretched.
    """

    rotary_dim: int | None = None
    rotary_base: float = 10000.0
    rotary_interleaved: bool = False
    rotary_factor: float = 1.0
    rotary_low_factor: float = 1.0
    rotary_high_factor: float = 4.0
    rotary_original_positions: int | None = None
    rotary_scaling: RotaryScaling | None = field(default=None, metadata={EXTENSION: True})
    rotary_truncated: bool = field(default=True, metadata={EXTENSION: True})
    rotary_attention_factor: float | None = field(default=None, metadata={EXTENSION: True})
    rotary_short_factors: tuple[float, ...] | None = field(default=None, metadata={EXTENSION: True})
    rotary_long_factors: tuple[float, ...] | None = field(default=None, metadata={EXTENSION: True})
    rotary_window_base: float | None = field(default=None, metadata={EXTENSION: True})


@dataclass(frozen=True, slots=True)
class Rotary:
    """How the positions of one kind of layer turn: radians a position of each pair, and what multiplies cos and sin."""

    frequencies: tuple[float, ...]
    scale: float = 1.0


def rotary_of(keys: RotaryKeys, dim: int, has_window: bool, length: int) -> Rotary:
    """How ``dim`` dimensions turn in a layer, of which ``length`` is the longest text that it reads."""
    if has_window and keys.rotary_window_base is not None:
        return Rotary(_fast(keys.rotary_window_base, dim))
    return Rotary(stretched(keys, dim, length), keys.rotary_attention_factor or 1.0)


def stretched(keys: RotaryKeys, dim: int, length: int = 0) -> tuple[float, ...]:
    """Radians a position of each of ``dim``/2 pairs. With P = ``rotary_original_positions`` and s = ``rotary_factor``:

    - ``linear``: every pair is divided by s.
    - ``llama3`` (Llama 3.1's released code): pairs that turn less than ``rotary_low_factor`` times over P positions are
      divided by s, those that turn more than ``rotary_high_factor`` times not at all, those between in proportion to
      their turns.
    - ``yarn`` (Peng et al. 2023, arXiv 2309.00071): the same bounds, and between them in proportion to the pair's
      number.
    - ``dynamic``: the base grows by (s·L/P − s + 1)^(dim/(dim − 2)) for a text of L = ``length`` > P positions.
    - ``long`` (LongRoPE, arXiv 2402.13753): each pair has a divisor of its own, one for texts up to P, one beyond.
    """
    base, factor, positions = keys.rotary_base, keys.rotary_factor, keys.rotary_original_positions
    if keys.rotary_scaling == "dynamic" and positions is not None and length > positions:
        base *= (factor * length / positions - factor + 1) ** (dim / (dim - 2))
    fast = _fast(base, dim)
    if keys.rotary_scaling == "dynamic":
        return fast
    if keys.rotary_scaling == "long":
        divisors = keys.rotary_long_factors if length > (positions or 0) else keys.rotary_short_factors
        return tuple(each / divisor for each, divisor in zip(fast, divisors or (), strict=True))
    if positions is None or keys.rotary_scaling == "linear":
        kept = [0.0] * len(fast)
    elif keys.rotary_scaling == "yarn":
        kept = _kept_by_number(keys, dim, positions)
    else:
        kept = [_kept_by_turns(keys, positions * each / (2 * math.pi)) for each in fast]
    return tuple(part * each + (1 - part) * each / factor for part, each in zip(kept, fast, strict=True))


def _fast(base: float, dim: int) -> tuple[float, ...]:
    return tuple(base ** (-pair / dim) for pair in range(0, dim, 2))


def _kept_by_turns(keys: RotaryKeys, turns: float) -> float:
    """Share of its speed that a pair of so many turns keeps (``llama3``)."""
    return min(1.0, max(0.0, (turns - keys.rotary_low_factor) / (keys.rotary_high_factor - keys.rotary_low_factor)))


def _kept_by_number(keys: RotaryKeys, dim: int, positions: int) -> list[float]:
    """Share of its speed that each pair keeps (``yarn``)."""

    def pair_with(turns: float) -> float:
        return dim * math.log(positions / (turns * 2 * math.pi)) / (2 * math.log(keys.rotary_base))

    first, last = pair_with(keys.rotary_high_factor), pair_with(keys.rotary_low_factor)
    if keys.rotary_truncated:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    width = last - first or 0.001  # as the released code, which divides by it
    return [1 - min(1.0, max(0.0, (pair - first) / width)) for pair in range(dim // 2)]

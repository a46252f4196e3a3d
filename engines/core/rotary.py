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
    ``rotary_base``^(−2i/dim) radians a position. ``rotary_scaling`` says how ``rotary_factor`` stretches them; where it
    is null, ``linear``, or ``llama3`` beside ``rotary_original_positions``. ``rotary_low_factor`` and
    ``rotary_high_factor`` are the turns over the original positions below and above which a pair is stretched wholly
    and not at all (``llama3``; ``yarn`` calls them beta_slow and beta_fast). ``rotary_attention_factor`` multiplies
    cosine and sine (``yarn``, ``long``). ``rotary_short_factors`` and ``rotary_long_factors`` (``long``) divide the
    speed of each pair, up to and beyond the original positions. ``rotary_window_base`` is the base in layers with a
    window, which are then not stretched.
    """

    rotary_dim: int | None = None
    rotary_base: float = 10000.0
    rotary_interleaved: bool = False
    rotary_factor: float = 1.0
    rotary_low_factor: float = 1.0
    rotary_high_factor: float = 4.0
    rotary_original_positions: int | None = None
    rotary_scaling: RotaryScaling | None = field(default=None, metadata={EXTENSION: True})
    rotary_attention_factor: float | None = field(default=None, metadata={EXTENSION: True})
    rotary_short_factors: tuple[float, ...] | None = field(default=None, metadata={EXTENSION: True})
    rotary_long_factors: tuple[float, ...] | None = field(default=None, metadata={EXTENSION: True})
    rotary_window_base: float | None = field(default=None, metadata={EXTENSION: True})


def stretched(keys: RotaryKeys, dim: int) -> tuple[float, ...]:
    """Radians a position of each of ``dim``/2 pairs, ``linear`` or ``llama3``.

    With P = ``rotary_original_positions`` only slow pairs are divided by ``rotary_factor``, as in Llama 3.1's released
    code: those that turn less than ``rotary_low_factor`` times over P positions wholly, those that turn more than
    ``rotary_high_factor`` times not at all, and between them in proportion.
    """
    positions, found = keys.rotary_original_positions, []
    for pair in range(0, dim, 2):
        fast = keys.rotary_base ** (-pair / dim)
        kept = 0.0
        if positions is not None:
            turns = positions * fast / (2 * math.pi)
            span = keys.rotary_high_factor - keys.rotary_low_factor
            kept = min(1.0, max(0.0, (turns - keys.rotary_low_factor) / span))
        found.append(kept * fast + (1 - kept) * fast / keys.rotary_factor)
    return tuple(found)

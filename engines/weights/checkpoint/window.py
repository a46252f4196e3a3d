"""Attention within a sliding window: its width, and which layers see beyond it."""

from collections.abc import Sequence
from typing import Any, Final

from engines.weights.checkpoint.config import Config

WINDOW: Final = "sliding_window"
PATTERN: Final = "sliding_window_pattern"
KINDS: Final = "layer_types"
SLIDING: Final = "sliding_attention"
FULL: Final = "full_attention"


def windows(
    config: Config,
    layers: int,
    max_positions: int,
    *,
    default: int | None = None,
    every: int | None = None,
    first: int = 0,
    keeps_wide: bool = False,
) -> dict[str, Any]:
    """The fields of :class:`engines.core.model.Model` about windows.

    ``default`` is what transformers takes where the key is left out, which no released config does. Where
    ``layer_types`` does not name the layers, those from ``first`` on have the window, but every ``every``-th. A window
    that no text outgrows is none, unless ``keeps_wide``: where the layers that have one differ in something else.

    Raises:
        InvalidRequest: layers with a window do not repeat in the way that a model can have, or the window is left out.
    """
    if WINDOW not in config.content and default is not None:
        raise config.refused(
            f"config.json has no {WINDOW}, which stands for {default}", f'add "{WINDOW}": {default} to it, or null'
        )
    window = config.integer(WINDOW) if config.gives(WINDOW) else None
    slides = _kinds(config, layers)
    if slides is None:
        is_full = [number < first or (every is not None and (number + 1) % every == 0) for number in range(layers)]
        slides = [window is not None and not each for each in is_full]
    if not any(slides):
        return {}
    if window is None:
        raise config.wrong(WINDOW, "must be given: some layers have a window")
    if window >= max_positions and not keeps_wide:
        return {}
    return {"attention_window": window, "global_every": _period(config, slides, every)}


def all_full(config: Config, layers: int) -> None:
    """Check that ``layer_types``, where it is given, names no layer with a window.

    Raises:
        InvalidRequest: it does.
    """
    if any(_kinds(config, layers) or ()):
        raise config.wrong(KINDS, f"must be {FULL} for every layer")


def _kinds(config: Config, layers: int) -> list[bool] | None:
    """Whether each layer has a window, by ``layer_types``; None where it is left out."""
    if not config.gives(KINDS):
        return None
    named = config.content[KINDS]
    if not isinstance(named, list) or any(each not in (SLIDING, FULL) for each in named):
        raise config.wrong(KINDS, f"must be {FULL} or {SLIDING} for every layer")
    if len(named) != layers:
        raise config.wrong(KINDS, f"must name as many layers as num_hidden_layers={layers}")
    return [bool(each == SLIDING) for each in named]


def _period(config: Config, slides: Sequence[bool], wanted: int | None) -> int | None:
    """n where every n-th layer sees all; None where none does."""
    candidates: list[int | None] = [*([wanted] if wanted else []), None, *range(2, len(slides) + 1)]
    for every in candidates:
        if all(each == (every is None or (number + 1) % every != 0) for number, each in enumerate(slides)):
            return every
    full = ", ".join(str(number + 1) for number, each in enumerate(slides) if not each)
    key = KINDS if config.content.get(KINDS) is not None else "max_window_layers"
    raise config.wrong(key, f"is not supported: layers {full} see beyond the window, and not every n-th")

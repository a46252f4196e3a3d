"""Attention within a sliding window: only a window that no prompt outgrows is supported."""

from typing import Final

from engines.weights.checkpoint.config import Config

WINDOW: Final = "sliding_window"


def check_window(config: Config, max_positions: int, default: int | None = None) -> None:
    """Check that ``sliding_window`` is null, or not shorter than the longest text; ``default`` where it is left out.

    Raises:
        InvalidRequest: tokens would see a window alone.
    """
    config.read.add(WINDOW)
    if WINDOW not in config.content and default is not None:
        raise config.refused(
            f"config.json has no {WINDOW}, which stands for {default}: attention within a window is not supported",
            f'add "{WINDOW}": null to it if the model has none',
        )
    if config.gives(WINDOW) and config.integer(WINDOW) < max_positions:
        raise config.wrong(WINDOW, f"is not supported: attention within a window of {max_positions} positions")

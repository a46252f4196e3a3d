"""Rows without a run."""

from typing import Any

from engines.core.row import Row


def a_row(**changes: Any) -> Row:
    """A measured row of tiny on eight devices of this machine; ``changes`` are fields of it."""
    content: dict[str, Any] = {
        "model": "tiny",
        "hw": "cpu",
        "num_chips": 8,
        "engine": "jax",
        "runtime": "auto",
        "phase": "decode",
        "batch_size": 4,
        "input_len": 16,
        "output_len": 4,
        "source": "measured",
        "status": "ok",
        "point_id": "0123456789abcdef",
        "created_at": "2026-01-02T03:04:05.006+00:00",
    }
    return Row(**{**content, **changes})

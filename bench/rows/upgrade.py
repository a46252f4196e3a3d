"""Rows that earlier versions stored, as rows of this one."""

from dataclasses import replace
from functools import cache

from bench.sweep.catalog import load_customised
from engines.core.chip import Chip
from engines.core.errors import InvalidRequest
from engines.core.row import Row


def upgrade(row: Row) -> Row:
    """The row with the keys that it was stored without.

    ``first_token``: before it was a key, every generate point on GPUs took its first token from the prefill and every
    other from the decode loop. On GPUs the convention was part of the question; elsewhere the engine's choice.
    """
    if row.phase != "generate" or row.first_token is not None:
        return row
    if _is_gpu(row.hw):
        return replace(row, first_token="prefill")
    return replace(row, first_token="decode", chosen=[*row.chosen, "first_token"])


@cache
def _is_gpu(hw: str) -> bool:
    """Whether a chip of ``conf/hw`` is a GPU; one that it does not describe is taken for none."""
    try:
        return Chip.from_config(load_customised("hw", hw)).kind == "gpu"
    except InvalidRequest:
        return False

"""Reads rows stored by earlier versions as what they were, and judges them by the present law."""

from dataclasses import replace
from functools import cache

from bench.rows.plausible import plausible
from bench.sweep.catalog import load_customised
from engines.core.chip import Chip
from engines.core.errors import InvalidRequest
from engines.core.row import Row


def upgrade(row: Row) -> Row:
    """The row with keys added that did not exist when it was stored, not valid if it is not :func:`plausible`.

    ``first_token``: before it was a key, generate points on GPUs sampled their first token from the prefill's logits,
    as part of the request, and all others in the decode loop, as the engine's choice.
    """
    row = plausible(row)
    if row.phase != "generate" or row.first_token is not None:
        return row
    if _is_gpu(row.hw):
        return replace(row, first_token="prefill")
    return replace(row, first_token="decode", chosen=[*row.chosen, "first_token"])


@cache
def _is_gpu(hw: str) -> bool:
    """Whether a chip of ``conf/hw`` is a GPU; False if there is no such chip."""
    try:
        return Chip.from_config(load_customised("hw", hw)).kind == "gpu"
    except InvalidRequest:
        return False

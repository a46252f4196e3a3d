"""Reads rows stored by earlier versions as what they were, and judges them by the present law."""

from dataclasses import replace
from functools import cache
from typing import Final

from bench.rows.plausible import plausible
from bench.sweep.catalog import load_customised
from engines.core.chip import Chip
from engines.core.errors import InvalidRequest
from engines.core.row import Row
from engines.core.runtime import AUTO
from engines.published.systems import runtime_of

RUNTIME_OF_ENGINE: Final = {
    "jax": "xla",
    "compiled": "xla",
    "torch": "torch-eager",
    "fastertransformer": "fastertransformer",
    "vllm": "vllm",
    "trtllm": "tensorrt-llm",
}
"""The runtime that each engine was while it was no key of a row."""


def upgrade(row: Row) -> Row:
    """The row with keys added that did not exist when it was stored, not valid if it is not :func:`plausible`.

    ``first_token``: before it was a key, generate points on GPUs sampled their first token from the prefill's logits,
    as part of the request, and all others in the decode loop, as the engine's choice.

    ``runtime``: what was measured or compiled ran by the engine's own, and what was published by the one that
    ``system`` names. Of what was predicted before it was a key, no runtime is known.
    """
    row = _with_runtime(plausible(row))
    if row.phase != "generate" or row.first_token is not None:
        return row
    if _is_gpu(row.hw):
        return replace(row, first_token="prefill")
    return replace(row, first_token="decode", chosen=[*row.chosen, "first_token"])


def _with_runtime(row: Row) -> Row:
    if row.runtime is not None:
        return row
    if row.source == "published":
        return replace(row, runtime=(row.system and runtime_of(row.system)) or AUTO)
    own = RUNTIME_OF_ENGINE.get(row.engine)
    if own is None or row.status != "ok":
        return replace(row, runtime=AUTO)
    return replace(row, runtime=own, chosen=["runtime", *row.chosen])


@cache
def _is_gpu(hw: str) -> bool:
    """Whether a chip of ``conf/hw`` is a GPU; False if there is no such chip."""
    try:
        return Chip.from_config(load_customised("hw", hw)).kind == "gpu"
    except InvalidRequest:
        return False

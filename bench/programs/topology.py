"""A slice by the name that XLA gives to its topology: ``v5e:4x4``."""

import re
from typing import Final

from bench.sweep.catalog import load_chip, names
from engines.core.chip import Chip
from engines.core.errors import InvalidRequest
from engines.core.slice import Slice, slice_of

TOPOLOGY: Final = re.compile(r"(\w+):(\d+(?:x\d+){0,2})")


def slice_named(topology: str) -> Slice:
    """The slice of a topology's name.

    Raises:
        InvalidRequest: the name has another form, there is no such chip, or it has no such slice.
    """
    found = TOPOLOGY.fullmatch(topology)
    if found is None:
        raise InvalidRequest("topology", topology, "is not the name of a topology", "write it like v5e:4x4 or v4:4x4x4")
    shape = tuple(int(size) for size in found[2].split("x"))
    chips = _chips()
    if found[1] not in chips:
        raise InvalidRequest("topology", topology, f"there is no chip {found[1]}", f"use one of {', '.join(chips)}")
    chip = chips[found[1]]
    count = 1
    for size in shape:
        count *= size
    try:
        return slice_of(chip, count, shape)
    except InvalidRequest as error:
        raise InvalidRequest("topology", topology, error.problem, error.remedy) from None


def _chips() -> dict[str, Chip]:
    """XLA's name → chip, of all chips that its TPU compiler knows."""
    loaded = (load_chip(name) for name in names("hw"))
    return {chip.xla.name: chip for chip in loaded if chip.xla is not None}

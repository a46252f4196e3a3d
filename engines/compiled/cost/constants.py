"""The few constants that turn a schedule into seconds, from ``constants.yaml``."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from engines.compiled.cost.torus import LinkConstants
from engines.core.chip import Chip
from engines.core.errors import Unsupported

FILE: Final = Path(__file__).with_name("constants.yaml")
LINK_KEYS: Final = ("link_efficiency", "hop_s", "launch_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipConstants:
    """One chip's: its core clock, its links', and the rows that set them."""

    clock_hz: float
    links: LinkConstants
    set_by: tuple[str, ...]


def constants_for(chip: Chip) -> ChipConstants:
    """The chip's constants; its clock is the datasheet's where that states one.

    Raises:
        Unsupported: no datasheet and no rule gives the clock, or the chip is no TPU known here.
    """
    known = _file()
    if chip.name not in known["chips"]:
        raise Unsupported(f"hw={chip.name}: engine=compiled has constants for {', '.join(known['chips'])}")
    merged = {**known["defaults"], **(known["chips"][chip.name] or {})}
    clock = chip.clock_hz or merged.get("clock_hz")
    if clock is None:
        raise Unsupported(f"hw={chip.name}: no clock is known, and cycles are no seconds without one")
    return ChipConstants(
        clock_hz=float(clock),
        links=LinkConstants(**{key: float(merged[key]) for key in LINK_KEYS}),
        set_by=tuple(merged["set_by"]),
    )


@cache
def _file() -> Mapping[str, Any]:
    import yaml

    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content

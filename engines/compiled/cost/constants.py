"""The constants of the links that turn a schedule into seconds, from ``constants.yaml`` or the chip's own file."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from engines.core.chip import Chip, LinkConstants

FILE: Final = Path(__file__).with_name("constants.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedLinks:
    """Constants of links, and ``set_by``, the published rows that set them."""

    constants: LinkConstants
    set_by: tuple[str, ...]


def link_constants_of(chip: Chip) -> FittedLinks:
    """The constants in the chip's file, else the defaults, which were set on tpu-v4."""
    if chip.link_constants is None:
        return _defaults()
    return FittedLinks(constants=chip.link_constants, set_by=(chip.sources.get("link_constants", f"hw={chip.name}"),))


@cache
def _defaults() -> FittedLinks:
    import yaml

    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    set_by = tuple(content.pop("set_by"))
    constants = LinkConstants(**{key: float(value) for key, value in content.items()})
    return FittedLinks(constants=constants, set_by=set_by)

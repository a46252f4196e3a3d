"""The constants of the links that turn a schedule into seconds, from ``constants.yaml`` or the chip's own file."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from engines.core.chip import Chip, LinkConstants

FILE: Final = Path(__file__).with_name("constants.yaml")
LAST: Final = "v5e"
"""The last generation with rows, whose constants one without rows inherits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedLinks:
    """Constants of links, and ``set_by``, the published rows that set them."""

    constants: LinkConstants
    set_by: tuple[str, ...]


def link_constants_of(chip: Chip) -> FittedLinks:
    """The constants in the chip's file, else those of its generation or of the one that it inherits from."""
    if chip.link_constants is not None:
        set_by = (chip.sources.get("link_constants", f"hw={chip.name}"),)
        return FittedLinks(constants=chip.link_constants, set_by=set_by)
    generations = fitted_links()
    name = chip.xla.name if chip.xla is not None else ""
    return generations.get(name) or generations[LAST]


@cache
def fitted_links() -> Mapping[str, FittedLinks]:
    """XLA's name of a generation → its constants, of those that published rows set."""
    import yaml

    content: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {
        name: FittedLinks(
            constants=LinkConstants(**{key: float(value) for key, value in figures.items() if key != "set_by"}),
            set_by=tuple(figures["set_by"]),
        )
        for name, figures in content.items()
    }

"""What ``conf/engine/jax.yaml`` can change, beside the point."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

TOLERANCE: Final[Mapping[str, float]] = {"float32": 1e-5, "float16": 0.01, "bfloat16": 0.06, "int8": 0.06}
_SAME_ANSWER: Final = frozenset({"tolerance", "virtual_devices"})
"""Settings that change neither what is computed nor how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``tolerance``: number format → largest relative error of logits; what is not named keeps its default."""

    seed: int = 0
    tolerance: Mapping[str, float] = field(default_factory=dict)
    virtual_devices: int = 8

    def allowed_error(self, *formats: str) -> float:
        """The tolerance of the coarsest of ``formats``."""
        tolerance = {**TOLERANCE, **self.tolerance}
        return max(tolerance[each] for each in formats)

    def options(self) -> dict[str, Any]:
        """The settings that change what is computed or how, where they are not the defaults."""
        plain = type(self)()
        changed = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _SAME_ANSWER}
        return {name: value for name, value in changed.items() if value != getattr(plain, name)}

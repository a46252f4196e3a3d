"""What a key of a point needs to mean anything: a part of the model, or another key.

Where it is missing, a point takes the key's default alone, a row has None, and the reference page says so.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from engines.core.errors import InvalidRequest

if TYPE_CHECKING:
    from engines.core.point import Point


class Needs(Protocol):
    """What a key needs."""

    def met(self, point: "Point") -> bool:
        """Whether the point has it."""
        ...

    def refusal(self, name: str, value: object, point: "Point") -> InvalidRequest:
        """Why the point does not take the key's value."""
        ...

    @property
    def words(self) -> str:
        """It in a few words, to follow the key's meaning."""
        ...


@dataclass(frozen=True, slots=True)
class OfModels:
    """Models that have the ``field``; ``part`` is what they have."""

    field: str
    part: str

    def met(self, point: "Point") -> bool:
        """Whether the model has it."""
        return getattr(point.model, self.field) is not None

    def refusal(self, name: str, value: object, point: "Point") -> InvalidRequest:
        """The model has no such part."""
        return InvalidRequest(
            name, value, f"is about {self.part} and model={point.model.name} has none", "leave it out"
        )

    @property
    def words(self) -> str:
        """``of models with experts``."""
        return f"of models with {self.part}"


@dataclass(frozen=True, slots=True)
class With:
    """One of the ``values`` of another ``key``; without any here, that key itself."""

    key: str
    values: tuple[str, ...] = ()

    def met(self, point: "Point") -> bool:
        """Whether the other key has one of them."""
        given = getattr(point, self.key)
        return given in self.values if self.values else given is not None

    def refusal(self, name: str, value: object, point: "Point") -> InvalidRequest:
        """The other key has another value."""
        given = f" alone, and {self.key}={getattr(point, self.key)}" if self.values else " alone"
        first = f"{self.key}={self.values[0]}" if self.values else self.key
        return InvalidRequest(name, value, f"is read {self.words}{given}", f"give {first}, or leave it out")

    @property
    def words(self) -> str:
        """``with speculative=draft``."""
        return f"with {self.key}={' or '.join(self.values)}" if self.values else f"with {self.key}"


def check_needs(point: "Point") -> None:
    """Check that every key that is not at its default has what it needs.

    Raises:
        InvalidRequest: one has not.
    """
    for name, key in point.schema().items():
        needs, value = key.about.needs, getattr(point, name)
        if needs is not None and value != key.default and not needs.met(point):
            raise needs.refusal(name, key.in_row(value), point)

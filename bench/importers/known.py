"""A value of an imported row with its origin: stated by the file, stated by the user, or derived by a named rule."""

from dataclasses import dataclass
from typing import Any

from bench.importers.rules import RULES

FILE, USER, RULE = "file: ", "user: ", "rule: "


@dataclass(frozen=True, slots=True)
class Known:
    """``origin`` is ``file: KEY``, ``user: KEY`` or ``rule: NAME of KEY, KEY``; the keys are those of the file."""

    value: Any
    origin: str

    @property
    def keys(self) -> str:
        """The keys of the file that the value comes from, as text; empty for a user's value or a rule without keys."""
        if self.origin.startswith(FILE):
            return self.origin.removeprefix(FILE)
        return self.origin.partition(" of ")[2] if self.origin.startswith(RULE) else ""


def by_user(key: str, value: Any) -> Known:
    """A value that the user gave as ``key``."""
    return Known(value, f"{USER}{key}")


def by_rule(name: str, value: Any, *sources: Known | None) -> Known:
    """A value that the rule ``name`` of :data:`RULES` derives from ``sources``.

    Raises:
        KeyError: there is no such rule.
    """
    assert RULES[name]
    keys = dict.fromkeys(key for source in sources if source is not None for key in source.keys.split(", ") if key)
    return Known(value, f"{RULE}{name}" + (f" of {', '.join(keys)}" if keys else ""))


def stated(**values: Known | None) -> dict[str, Known]:
    """The values that are known."""
    return {name: value for name, value in values.items() if value is not None}

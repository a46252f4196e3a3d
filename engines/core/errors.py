"""The reasons for which a point has no answer, one class each.

The harness turns each into a status and an exit code, so an engine raises the one that applies and never a bare
``ValueError``: an out-of-memory row must mean out of memory and nothing else.
"""

from collections.abc import Mapping

from engines.core.text import one_line, shortened


class ShardbenchError(Exception):
    """An error that a user can act on, in one sentence."""


class InvalidRequest(ShardbenchError):
    """Invalid request: names the key, its value, what must hold and the remedy."""

    def __init__(self, key: str, value: object, problem: str, remedy: str) -> None:
        self.key = key
        self.value = value
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{key}={shown(value)}: {problem}; {remedy}")

    def __reduce__(self) -> tuple[type["InvalidRequest"], tuple[str, object, str, str]]:
        return (type(self), (self.key, self.value, self.problem, self.remedy))


class Unsupported(ShardbenchError):
    """A valid request that this engine does not support."""


class OutOfMemory(ShardbenchError):
    """The program does not fit in the memory of the chips."""


class TimedOut(ShardbenchError):
    """A process did not end in time and was killed."""


def shown(value: object) -> str:
    """As a user would type it: ``[4,4,4]``, not ``(4, 4, 4)``; ``null`` and ``true``."""
    return shortened(one_line(_typed(value)))


def _typed(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_typed, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_typed(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)

"""Which version of the timing model a program's seconds are of: what they are, beside the figures of the device.

A change that times an instruction otherwise raises the version of the programs that have it, and of no other. So an
answer says which instructions its programs have (:func:`timing_model`), and whether it still stands follows from that,
without compiling: :func:`is_present`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

FIRST_VERSION: Final = 2
EVERY_PROGRAM: Final = "*"
CHANGES: Final[Mapping[int, Collection[str]]] = MappingProxyType({3: ("scatter",)})
"""Version → the instructions, by :func:`engines.compiled.hlo.opcodes.label_of`, whose programs it times otherwise;
:data:`EVERY_PROGRAM` is all. A test ties it to stored schedules. 3: a scatter counts with what it writes."""
DETAIL: Final = "timing_model"
"""The key of a row's details."""


def version_of(instructions: Collection[str]) -> int:
    """The last version that timed programs of these instructions otherwise than the one before."""
    has = {EVERY_PROGRAM, *instructions}
    return max((version for version, changed in CHANGES.items() if not has.isdisjoint(changed)), default=FIRST_VERSION)


def timing_model(instructions: Collection[str]) -> dict[str, Any]:
    """What an answer says of the model that timed it: its version, and what its programs consist of."""
    return {DETAIL: {"version": version_of(instructions), "instructions": sorted(instructions)}}


def stored_version(details: Mapping[str, Any]) -> int | None:
    """The version that timed a row; None of one from before rows told it."""
    told = details.get(DETAIL)
    return told["version"] if isinstance(told, dict) else None


def present_version(details: Mapping[str, Any]) -> int | None:
    """The version that would time the programs of a row now; None where it does not tell what they consist of."""
    told = details.get(DETAIL)
    return version_of(told["instructions"]) if isinstance(told, dict) else None


def by_version(answers: Iterable[Mapping[str, Any]], program_id: Callable[[int], str]) -> list[str | None]:
    """``program_id`` of the present version of each answer, by its details: computed once a version."""
    versions = [present_version(details) for details in answers]
    ids = {version: program_id(version) for version in {*versions} if version is not None}
    return [None if version is None else ids[version] for version in versions]


def is_present(details: Mapping[str, Any]) -> bool:
    """Whether a row has the seconds that its programs are given now; False where it does not tell."""
    return stored_version(details) is not None and stored_version(details) == present_version(details)

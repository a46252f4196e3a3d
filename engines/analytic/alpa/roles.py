"""What each mesh axis does to a value or a matmul, and what it sends to do something else.

A value [rows, columns] gives each of the axes x, y, z a role, written as three letters in that order: ``t`` splits its
rows (tokens), ``c`` its columns, ``u`` has terms that are still to be summed, ``r`` has copies. A matmul
[t, k]·[k, n] gives ``t``, ``k``, ``n`` or ``r``, its matrix in memory ``k``, ``n`` or ``r``.
"""

import itertools
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final, NamedTuple

from engines.core.slice import MeshShape

VALUE: Final = "tcr"
MATMUL: Final = "tknr"
MATRIX: Final = "knr"


class Sent(NamedTuple):
    """A collective along ``axes``; its payload is what a chip holds of the value with these axes along each dimension.

    As in :class:`engines.core.volume.Payload`: the result of an all-gather, the input of the others. A ``copy`` sends
    nothing: a chip puts what came along both dimensions in order.
    """

    kind: str
    axes: str
    rows: str
    columns: str


def assignments(letters: str, mesh: MeshShape) -> list[str]:
    """Every way to give a mesh's axes one of the letters; an axis of one chip has ``r``."""
    return ["".join(each) for each in itertools.product(*(letters if size > 1 else "r" for size in mesh))]


@cache
def having(roles: str, letters: str) -> str:
    """The axes with one of these roles: ``having("tct", "t") == "xz"``."""
    return "".join(axis for axis, role in zip("xyz", roles, strict=True) if role in letters)


@cache
def renamed(roles: str, to: tuple[tuple[str, str], ...]) -> str:
    """Roles with letters replaced, those that are not named by ``r``."""
    names: Mapping[str, str] = dict(to)
    return "".join(names.get(role, "r") for role in roles)


def roles_of(axes: Mapping[str, Iterable[str]]) -> str:
    """The roles of axes by letter: ``roles_of({"t": "x", "c": "yz"}) == "tcc"``; of others ``r``."""
    found = dict.fromkeys("xyz", "r")
    for letter, named in axes.items():
        found |= dict.fromkeys(named, letter)
    return "".join(found.values())


@cache
def sent(source: str, target: str) -> tuple[Sent, ...]:
    """The collectives that turn a value of roles ``source`` into one of roles ``target``.

    What only takes a part is done first, then sums, then exchanges, then what makes a chip hold more, so that each
    sends as little as it can. A sum that every chip needs is a reduce-scatter and an all-gather. What is exchanged
    along some axes and gathered along others is more than a compiler finds: it gathers the whole value.
    """
    rows, columns = set(having(source, "t")), set(having(source, "c"))
    pairs = dict(zip("xyz", zip(source, target, strict=True), strict=True))
    found: list[Sent] = []

    def add(kind: str, axes: list[str]) -> None:
        if axes:
            found.append(Sent(kind, "".join(axes), "".join(sorted(rows)), "".join(sorted(columns))))

    def place(axes: list[str]) -> None:
        rows.difference_update(axes)
        columns.difference_update(axes)
        rows.update(axis for axis in axes if pairs[axis][1] == "t")
        columns.update(axis for axis in axes if pairs[axis][1] == "c")

    place([axis for axis, (before, after) in pairs.items() if before == "r" and after in "tc"])
    scattered = [axis for axis, (before, after) in pairs.items() if before == "u" and after in "tc"]
    add("reduce-scatter", scattered)
    place(scattered)
    add("all-reduce", [axis for axis, (before, after) in pairs.items() if before == "u" and after == "r"])
    exchanged = [axis for axis, pair in pairs.items() if pair in (("t", "c"), ("c", "t"))]
    gathered = [axis for axis, (before, after) in pairs.items() if before in "tc" and after == "r"]
    if exchanged and gathered:
        gathered = sorted(rows | columns)
        rows.clear()
        columns.clear()
    else:
        add("all-to-all", exchanged)
        place(exchanged)
        place(gathered)
    add("all-gather", gathered)
    if {pairs[axis][0] for axis in gathered} >= {"t", "c"}:
        found.append(found[-1]._replace(kind="copy", axes=""))
    return tuple(found)

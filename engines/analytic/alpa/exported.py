"""A choice as shardings that a compiler can be told: roles as ordered axes.

A compiler moves a dimension's fastest axes, and appends what comes to a dimension as its fastest, in the order that it
had: that takes one collective. Any other order takes a permute of the whole value more, and behind a matmul it may
gather the matrix. So every value's axes stand as they came from the value before: those that stay, then those that
move on.
"""

from engines.analytic.alpa.graph import Choice
from engines.analytic.alpa.roles import having, roles_of
from engines.core.model import Model
from engines.core.shardings import EXPERTS, Shardings, projections
from engines.core.slice import MeshShape

BATCH_ORDER, COLUMN_ORDER = "xyz", "zyx"


def shardings_of(model: Model, mesh: MeshShape, choice: Choice) -> Shardings:
    """The shardings of a choice, ordered along the layer; axes of one chip split nothing."""
    stream: tuple[str, ...] = ("", "")
    for _ in range(3):  # the residual stream's order follows from the end of a layer, which follows from its beginning
        cuts = _Ordered(model, mesh, choice).cuts(stream)
        stream = cuts["residual"]
    return Shardings.of(cuts)


class _Ordered:
    def __init__(self, model: Model, mesh: MeshShape, choice: Choice) -> None:
        self.model, self.choice = model, choice
        self.real = {axis for axis, size in zip("xyz", mesh, strict=True) if size > 1}

    def _axes(self, name: str, letters: str, *before: str) -> str:
        """The axes of a dimension, those of ``before`` first and in their order."""
        mine = [axis for axis in having(self.choice[name], letters) if axis in self.real]
        rest = BATCH_ORDER if "t" in letters else COLUMN_ORDER
        return "".join(sorted(mine, key=[*"".join(before), *rest].index))

    def cuts(self, stream: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Every value's axes, where the residual stream [tokens, E] is in the order ``stream``."""
        found: dict[str, tuple[str, ...]] = {"table": (self._axes("table", "k"), self._axes("table", "n"))}
        first, *more = projections(self.model)
        entry: tuple[str, ...] = (self._axes("residual", "t", stream[0]), self._axes("residual", "c", stream[1]))
        leaving = self._attended(found, first, entry)
        if self.model.block == "serial":
            found["middle"] = leaving = self._left("middle", leaving)
            entry = leaving
        if "experts" in self.choice:
            found["experts"] = tuple(self._axes("experts", letter) for letter in EXPERTS)
            summed = self._axes("experts", "en", entry[1], entry[0])
            leaving = (self._axes("experts", "atg", *entry), summed, self._axes("experts", "k", entry[1]))
        for name in more:
            leaving = self._fed(found, name, entry)
        found["residual"] = self._left("residual", leaving)
        return found

    def _left(self, name: str, made: tuple[str, ...]) -> tuple[str, ...]:
        """The value that a matmul [tokens, rows, columns] makes: terms along its rows are scattered."""
        tokens, rows, columns = made
        return self._axes(name, "t", tokens, rows, columns), self._axes(name, "c", columns, rows, tokens)

    def _matmul(
        self, found: dict[str, tuple[str, ...]], name: str, read: tuple[str, ...], kept: str = ""
    ) -> tuple[str, ...]:
        """A matmul of what it reads [tokens, columns], and its matrix in memory; ``kept`` of what it makes is first."""
        tokens, rows = self._axes(name, "t", *read), self._axes(name, "k", read[1], read[0])
        columns = self._axes(name, "n", kept)
        stored = f"{name}.weights"
        found[stored] = (self._axes(stored, "k", rows), self._axes(stored, "n", columns))
        found[name] = (tokens, rows, columns)
        return found[name]

    def _attended(self, found: dict[str, tuple[str, ...]], name: str, entry: tuple[str, ...]) -> tuple[str, ...]:
        """From the stream into attention and out of it; with one norm the feed-forward's columns go beside it."""
        heads, rows = self._axes("attention", "c"), self._axes(f"{name}.out", "k")
        stay = [axis for axis in heads if axis in rows] + [*heads, *rows]
        columns = self._left(f"{name}.columns", self._matmul(found, f"{name}.in", entry, "".join(stay)))
        heads = self._axes("attention", "c", columns[1], columns[0])
        sequences = self._axes("attention", "t", *columns)
        beside = columns[1] if name == "fused" else ""
        joined = (
            self._axes(f"{name}.joined", "t", sequences, heads),
            self._axes(f"{name}.joined", "c", beside, heads, sequences),
        )
        found |= {f"{name}.columns": columns, f"{name}.joined": joined, "attention": (sequences, heads)}
        after = "middle" if self.model.block == "serial" else "residual"
        return self._matmul(found, f"{name}.out", joined, self._axes(after, "c"))

    def _fed(self, found: dict[str, tuple[str, ...]], name: str, entry: tuple[str, ...]) -> tuple[str, ...]:
        into = self._matmul(found, f"{name}.in", entry, self._axes(f"{name}.out", "k"))
        found[f"{name}.columns"] = self._left(f"{name}.columns", into)
        return self._matmul(found, f"{name}.out", found[f"{name}.columns"], self._axes("residual", "c"))


def choice_of_shardings(shardings: Shardings) -> Choice:
    """The choice that shardings are: the inverse of :func:`shardings_of`."""
    letters = {2: "tc", 3: "tkn", len(EXPERTS): EXPERTS}
    found = {}
    for name, dims in shardings.cuts:
        matrix = name == "table" or name.endswith(".weights")
        found[name] = roles_of(dict(zip("kn" if matrix else letters[len(dims)], dims, strict=True)))
    return found

"""Location of a canonical tensor in a file: its rows and columns, and how the file orders them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

Runs = tuple[tuple[int, int, int], ...]
"""(first column, where it is in the file, how many), ascending and without gaps."""


@dataclass(frozen=True, slots=True)
class TensorLocation:
    """A canonical tensor [rows, columns] in the stored tensor ``name`` of ``shape``.

    A matrix is stored as [columns of all that share it, rows] where ``transposed`` (a weight of ``torch.nn.Linear``),
    else as [rows, columns]. A vector has one row, which is not stored. ``runs`` says which columns of the stored
    tensor are this one's: every one, or every ``step``-th. Rows begin with the stored tensor's ``first_row``, and
    ``added`` is added to each stored value.

    ``stack`` canonical tensors of one name, such as those of experts, are one canonical tensor [stack, rows, columns].
    They lie in stored tensors of their own, whose number stands for the ``{}`` in ``name``, or along the first
    dimension of one.
    """

    name: str
    shape: tuple[int, ...]
    rows: int
    transposed: bool
    runs: Runs
    step: int = 1
    first_row: int = 0
    added: float = 0.0
    stack: int | None = None

    @property
    def columns(self) -> int:
        """Columns of the canonical tensor."""
        return sum(length for _, _, length in self.runs)

    @property
    def each_apart(self) -> bool:
        """Whether every tensor of a stack is stored on its own."""
        return self.stack is not None and "{}" in self.name

    @property
    def names(self) -> list[str]:
        """Names of the stored tensors."""
        return [self.name.format(each) for each in range(self.stack or 0)] if self.each_apart else [self.name]

    @property
    def is_vector(self) -> bool:
        """Whether one tensor has a single row, which is not stored."""
        return len(self.shape) - (self.stack is not None and not self.each_apart) == 1

    def stored(self, number: int) -> tuple[str, tuple[slice, ...]]:
        """The stored tensor of one tensor of the stack, and what selects it there before its own dimensions."""
        if self.stack is None:
            return self.name, ()
        return (self.name.format(number), ()) if self.each_apart else (self.name, (slice(number, number + 1),))

    def ranges(self, columns: slice) -> Iterator[tuple[slice, slice]]:
        """(columns of the file, where they go within ``columns``) of each run that holds some of ``columns``."""
        for start, stored, length in self.runs:
            first, last = max(columns.start, start), min(columns.stop, start + length)
            if first < last:
                at = stored + (first - start) * self.step
                until = at + (last - first - 1) * self.step + 1
                yield slice(at, until, self.step), slice(first - columns.start, last - columns.start)


def stacked_experts(count: int, apart: bool, each: Mapping[str, TensorLocation]) -> dict[str, TensorLocation]:
    """The locations of one expert's tensors as those of ``count`` experts."""
    return {
        name: replace(one, stack=count, shape=one.shape if apart else (count, *one.shape)) for name, one in each.items()
    }


def table(name: str, rows: int, columns: int) -> TensorLocation:
    """An embedding, stored as it is: [rows, columns]."""
    return TensorLocation(name, (rows, columns), rows, False, ((0, 0, columns),))


def linear(name: str, rows: int, columns: int) -> TensorLocation:
    """The weight of a ``torch.nn.Linear`` from ``rows`` to ``columns``, stored as [columns, rows]."""
    return TensorLocation(name, (columns, rows), rows, True, ((0, 0, columns),))


def vector(name: str, length: int) -> TensorLocation:
    """A bias or a norm's scale [length]."""
    return TensorLocation(name, (length,), 1, False, ((0, 0, length),))


def with_bias(ours: str, module: str, rows: int, columns: int) -> dict[str, TensorLocation]:
    """The weight and the bias of a ``torch.nn.Linear``."""
    return {
        ours: linear(f"{module}.weight", rows, columns),
        f"{ours}_bias": vector(f"{module}.bias", columns),
    }


def norm(ours: str, module: str, length: int, added: float = 0.0) -> dict[str, TensorLocation]:
    """The scale and the bias of a layernorm or RMSnorm that scales by ``added`` + its weight."""
    scale = replace(vector(f"{module}.weight", length), added=added)
    return {f"{ours}.scale": scale, f"{ours}.bias": vector(f"{module}.bias", length)}


def interleaved(shape: tuple[int, ...], name: str, rows: int, columns: int, at: int, of: int) -> TensorLocation:
    """Every ``of``-th column from ``at`` on of a stored tensor of ``shape``, which is used as it is stored."""
    return TensorLocation(name, shape, rows, False, ((0, at, columns),), step=of)


def by_head(name: str, rows: int, heads: int, parts: Mapping[str, int]) -> dict[str, TensorLocation]:
    """Matrices in one ``torch.nn.Linear`` whose outputs are, head by head, so many of each."""
    period, found, first = sum(parts.values()), {}, 0
    for ours, width in parts.items():
        runs = tuple((head * width, head * period + first, width) for head in range(heads))
        found[ours] = TensorLocation(name, (heads * period, rows), rows, True, runs)
        first += width
    return found


def fused_qkv(name: str, rows: int, groups: int, group: int, head_dim: int) -> dict[str, TensorLocation]:
    """q, k and v in one Linear whose outputs are, a key/value head, its ``group`` query heads, then its k and its v.

    With one group that is multiquery's [all q | k | v], with one query head a group [q | k | v] head by head. The
    biases have the same order.
    """
    period, total = (group + 2) * head_dim, groups * (group + 2) * head_dim
    found = {}
    for letter, offset, width in (("q", 0, group), ("k", group, 1), ("v", group + 1, 1)):
        length = width * head_dim
        runs = tuple((each * length, each * period + offset * head_dim, length) for each in range(groups))
        found[letter] = TensorLocation(f"{name}.weight", (total, rows), rows, True, runs)
        found[f"{letter}_bias"] = TensorLocation(f"{name}.bias", (total,), 1, False, runs)
    return found


def stacked(layer: str, module: str, rows: int, columns: Mapping[str, int]) -> dict[str, TensorLocation]:
    """Several matrices and their biases in one ``torch.nn.Linear``, one after another: name → its columns."""
    return _one_after_another(layer, module, rows, columns, transposed=True)


def as_used(layer: str, module: str, rows: int, columns: Mapping[str, int]) -> dict[str, TensorLocation]:
    """As :func:`stacked`, in a module that stores its matrix as [rows, columns], which GPT-2's do."""
    return _one_after_another(layer, module, rows, columns, transposed=False)


def _one_after_another(
    layer: str, module: str, rows: int, columns: Mapping[str, int], *, transposed: bool
) -> dict[str, TensorLocation]:
    total, found, first = sum(columns.values()), {}, 0
    shape = (total, rows) if transposed else (rows, total)
    for name, width in columns.items():
        runs = ((0, first, width),)
        found[f"{layer}.{name}"] = TensorLocation(f"{module}.weight", shape, rows, transposed, runs)
        found[f"{layer}.{name}_bias"] = TensorLocation(f"{module}.bias", (total,), 1, False, runs)
        first += width
    return found

"""A slice of chips: which counts exist, which mesh they form, which axes wrap around."""

import math
from dataclasses import dataclass
from itertools import permutations

from engines.core.chip import Chip, SliceShapes
from engines.core.errors import InvalidRequest

MeshShape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Slice:
    """``chip`` × ``mesh_shape`` [X, Y, Z]. A slice with fewer axes has size 1 along the rest."""

    chip: Chip
    mesh_shape: MeshShape

    @property
    def num_chips(self) -> int:
        """n = X·Y·Z."""
        return math.prod(self.mesh_shape)

    @property
    def wrap(self) -> tuple[bool, bool, bool]:
        """Which axes close into a ring; none of a GPU or cpu, whose links have no axes."""
        rule = self.chip.slices
        x, y, z = (rule is not None and size % rule.ring_multiple == 0 for size in self.mesh_shape)
        return (x, y, z)


def slice_of(chip: Chip, num_chips: int, mesh_shape: tuple[int, ...] | None = None) -> Slice:
    """The slice of ``num_chips`` chips: of ``mesh_shape`` where that is given, else the most cubic one that exists.

    Raises:
        InvalidRequest: no such slice exists (names the key and the nearest counts that do).
    """
    if num_chips < 1:
        raise InvalidRequest("num_chips", num_chips, "must be an integer ≥ 1", "give the number of chips")
    if num_chips > chip.max_chips:
        raise InvalidRequest(
            "num_chips", num_chips, f"exceeds the largest {chip.name} slice", f"use at most {chip.max_chips}"
        )
    if mesh_shape is None:
        shapes = _shapes(chip, num_chips)
        if not shapes:
            raise InvalidRequest(
                "num_chips", num_chips, f"is not a slice of {chip.name}", f"the nearest are {_near(chip, num_chips)}"
            )
        return Slice(chip, shapes[0])
    sizes = (*mesh_shape, 1, 1, 1)[:3] if len(mesh_shape) <= 3 else mesh_shape
    if len(sizes) != 3 or any(size < 1 for size in sizes):
        raise InvalidRequest("mesh_shape", mesh_shape, "is not a mesh", "give three sizes ≥ 1, such as [4,4,4]")
    if math.prod(sizes) != num_chips:
        raise InvalidRequest(
            "mesh_shape",
            mesh_shape,
            f"has {math.prod(sizes)} chips, not num_chips={num_chips}",
            "make them agree, or leave mesh_shape=auto",
        )
    shape: MeshShape = (sizes[0], sizes[1], sizes[2])
    if tuple(sorted(shape)) not in {tuple(sorted(known)) for known in _shapes(chip, num_chips)}:
        known = ", ".join(str(list(each)) for each in _shapes(chip, num_chips)[:4])
        remedy = (
            f"slices of {num_chips} chips: {known}" if known else f"the nearest have {_near(chip, num_chips)} chips"
        )
        raise InvalidRequest("mesh_shape", mesh_shape, f"is not a slice of {chip.name}", remedy)
    return Slice(chip, shape)


def mesh_shapes(chip: Chip, num_chips: int) -> list[MeshShape]:
    """Every mesh of that many chips, axes in any order, the most cubic first; empty where no slice exists."""
    orders = [
        (shape[i], shape[j], shape[k]) for shape in _shapes(chip, num_chips) for i, j, k in permutations(range(3))
    ]
    return list(dict.fromkeys(orders))


def chip_counts(chip: Chip) -> list[int]:
    """Every chip count of which a slice exists, ascending."""
    return [count for count in range(1, chip.max_chips + 1) if _shapes(chip, count)]


def _near(chip: Chip, num_chips: int) -> str:
    below = next((count for count in range(num_chips - 1, 0, -1) if _shapes(chip, count)), None)
    above = next((count for count in range(num_chips + 1, chip.max_chips + 1) if _shapes(chip, count)), None)
    return " and ".join(str(count) for count in (below, above) if count is not None)


def _shapes(chip: Chip, num_chips: int) -> list[MeshShape]:
    """Shapes [X ≤ Y ≤ Z] of that many chips (2D: [X ≤ Y, 1]), the most cubic first."""
    if chip.slices is not None:
        allowed = _slice_shapes(chip.slices, num_chips)
    elif chip.kind == "gpu" and not _fills_nodes(chip, num_chips):
        allowed = []
    else:
        allowed = _factorizations(num_chips)
    return sorted(allowed, key=lambda shape: (max(shape), sum(shape)))


def _slice_shapes(rule: SliceShapes, num_chips: int) -> list[MeshShape]:
    listed = [(*shape, 1)[:3] for shape in rule.shapes if math.prod(shape) == num_chips]
    shapes: list[MeshShape] = [(shape[0], shape[1], shape[2]) for shape in listed]
    if rule.cube is not None and num_chips % rule.cube**3 == 0:
        side = rule.cube
        shapes += [(x * side, y * side, z * side) for x, y, z in _factorizations(num_chips // side**3)]
    return list(dict.fromkeys(shapes))


def _fills_nodes(chip: Chip, num_chips: int) -> bool:
    """Whether GPUs are an even part of one node, a power of two of it, or whole nodes."""
    if num_chips > chip.node_size:
        return num_chips % chip.node_size == 0
    return chip.node_size % num_chips == 0 or num_chips & (num_chips - 1) == 0


def _factorizations(number: int) -> list[MeshShape]:
    """Every [X ≤ Y ≤ Z] with X·Y·Z = number."""
    return [
        (x, y, number // (x * y))
        for x in _divisors(number)
        for y in _divisors(number // x)
        if x <= y <= number // (x * y)
    ]


def _divisors(number: int) -> list[int]:
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return small + [number // each for each in reversed(small) if each * each != number]

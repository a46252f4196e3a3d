"""Chips joined into a slice: which counts exist, which mesh they form, which axes wrap around."""

import math
from dataclasses import dataclass
from itertools import permutations

from engines.core.chip import Chip
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
        """Which axes close into a ring.

        3D TPUs (v4, v5p, 7x) go through optical switches that close every axis of a multiple of 4 chips; 2D TPUs
        (v5e, v6e) close only an axis that spans the whole 16-chip side of their pod.
        """
        if self.chip.kind != "tpu":
            return (False, False, False)
        x, y, z = self.mesh_shape
        if self.chip.torus_dims == 3:
            return (x % 4 == 0, y % 4 == 0, z % 4 == 0)
        return (x == 16, y == 16, z == 16)


def slice_of(chip: Chip, num_chips: int, mesh_shape: tuple[int, ...] | None = None) -> Slice:
    """The slice of ``num_chips`` chips: as asked in ``mesh_shape``, else the most cubic one that exists.

    Raises:
        InvalidRequest: no such slice exists (names the key and the nearest counts that do).
    """
    if num_chips < 1:
        raise InvalidRequest("num_chips", num_chips, "is not positive", "give 1 or more")
    if num_chips > chip.max_chips:
        raise InvalidRequest(
            "num_chips", num_chips, f"is more than a {chip.name} slice has", f"use at most {chip.max_chips}"
        )
    if mesh_shape is None:
        shapes = _shapes(chip, num_chips)
        if not shapes:
            raise InvalidRequest(
                "num_chips", num_chips, f"is no slice of {chip.name}", f"near it are {_near(chip, num_chips)}"
            )
        return Slice(chip, shapes[0])
    asked = (*mesh_shape, 1, 1, 1)[:3] if len(mesh_shape) <= 3 else mesh_shape
    if len(asked) != 3 or any(size < 1 for size in asked):
        raise InvalidRequest("mesh_shape", mesh_shape, "is no mesh", "give three positive sizes such as [4,4,4]")
    if math.prod(asked) != num_chips:
        raise InvalidRequest(
            "mesh_shape",
            mesh_shape,
            f"has {math.prod(asked)} chips, not num_chips={num_chips}",
            "make them agree, or leave mesh_shape=auto",
        )
    shape: MeshShape = (asked[0], asked[1], asked[2])
    if tuple(sorted(shape)) not in {tuple(sorted(known)) for known in _shapes(chip, num_chips)}:
        known = ", ".join(str(list(each)) for each in _shapes(chip, num_chips)[:4]) or "none"
        raise InvalidRequest(
            "mesh_shape", mesh_shape, f"is no slice of {chip.name}", f"with {num_chips} chips: {known}"
        )
    return Slice(chip, shape)


def mesh_shapes(chip: Chip, num_chips: int) -> list[MeshShape]:
    """Every mesh of that many chips, axes in any order, the most cubic first; empty where no slice exists."""
    orders = [
        (shape[i], shape[j], shape[k]) for shape in _shapes(chip, num_chips) for i, j, k in permutations(range(3))
    ]
    return list(dict.fromkeys(orders))


def chip_counts(chip: Chip) -> list[int]:
    """Every chip count of which a slice exists, ascending."""
    return [count for count in range(1, chip.max_chips + 1) if _is_count(chip, count)]


def _is_count(chip: Chip, num_chips: int) -> bool:
    # 3D slices beyond one cube are many-of-4 along each axis, so most counts fall at once.
    if chip.kind == "tpu" and num_chips > 64 and num_chips % 64:
        return False
    return bool(_shapes(chip, num_chips))


def _near(chip: Chip, num_chips: int) -> str:
    below = next((count for count in range(num_chips - 1, 0, -1) if _is_count(chip, count)), None)
    above = next((count for count in range(num_chips + 1, chip.max_chips + 1) if _is_count(chip, count)), None)
    return " and ".join(str(count) for count in (below, above) if count is not None)


def _shapes(chip: Chip, num_chips: int) -> list[MeshShape]:
    """Shapes [X ≤ Y ≤ Z] of that many chips (2D: [X ≤ Y, 1]), the most cubic first."""
    triples = [
        (x, y, num_chips // (x * y))
        for x in _divisors(num_chips)
        for y in _divisors(num_chips // x)
        if x <= y <= num_chips // (x * y)
    ]
    if chip.kind == "tpu" and chip.torus_dims == 2:
        flat = [(y, z, 1) for x, y, z in triples if x == 1]
        allowed = [shape for shape in flat if _is_2d_slice(shape)]
    elif chip.kind == "tpu":
        allowed = [shape for shape in triples if _is_3d_slice(shape)]
    elif chip.kind == "gpu":
        whole = num_chips % chip.node_size == 0 if num_chips > chip.node_size else chip.node_size % num_chips == 0
        allowed = triples if whole else []
    else:
        allowed = triples
    return sorted(allowed, key=lambda shape: (max(shape), sum(shape)))


def _is_2d_slice(shape: MeshShape) -> bool:
    """v5e and v6e: 1×1, 2×2, 2×4, 4×4, 4×8, 8×8, 8×16, 16×16 (Google Cloud TPU v5e and v6e pages)."""
    x, y, _ = shape
    return shape == (1, 1, 1) or (x in (2, 4, 8, 16) and y in (x, 2 * x) and y <= 16)


def _is_3d_slice(shape: MeshShape) -> bool:
    """v4, v5p and 7x: parts of one 4×4×4 cube, or whole cubes (Google Cloud TPU v4 page, topologies)."""
    parts = {(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 4), (2, 4, 4)}
    return shape in parts or all(size % 4 == 0 for size in shape)


def _divisors(number: int) -> list[int]:
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return small + [number // each for each in reversed(small) if each * each != number]

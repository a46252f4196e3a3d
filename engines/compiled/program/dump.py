"""Which TPU, slice and devices a dumped module was compiled for: as a dump says beside it, else as its text tells.

A folder of ``--xla_dump_to`` holds, for each module, ``MODULE.target_arguments.txt`` (generation and topology) and
``MODULE.execution_options.txt`` (the device of each partition). A text alone tells no more than whether the two cores
of a chip were one device.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines.core.errors import InvalidRequest
from engines.core.slice import Slice

GENERATIONS: Final = {
    ("PUFFERFISH", ""): "v4",
    ("VIPERFISH", "lite"): "v5e",
    ("VIPERFISH", ""): "v5p",
    ("GHOSTLITE", ""): "v6e",
    ("6acc60406", ""): "tpu7x",
}
"""Version and variant as libtpu 0.0.42 writes them for each of its topologies → the topology's own name."""
PAIRED: Final = ("v4", "v5p")
"""Generations whose two cores are one device: the compiler splits work between them by a ``megacore_config``."""
FLAT: Final = ("v5e", "v6e")
"""Generations whose torus has two axes."""
SPLIT: Final = "megacore_config"
CYCLES: Final = "estimated_cycles"
FEW: Final = 20
"""Fewer instructions, without a matmul, may have nothing to split."""
MATMUL: Final = " convolution("
SCHEDULED: Final = (
    "*.after_codegen.txt", "*.after_codegen.hlo.pb", "*gpu_after_optimizations.txt", "*gpu_after_optimizations.hlo.pb",
)  # fmt: skip
"""The last file of a module in a dump: of the TPU's compiler, then of the GPU's."""
DUMP_AGAIN: Final = "dump with XLA_FLAGS='--xla_dump_to=FOLDER --xla_dump_hlo_as_text'"
_STAGE: Final = re.compile(r"\.after_codegen\.(?:txt|hlo\.pb)(?:\.gz)?$")
_VERSION: Final = re.compile(r"\bversion: TPU_VERSION_(\w+)")
_VARIANT: Final = re.compile(r'\bvariant: "(\w*)"')
_DEVICE: Final = re.compile(r"replica_device_ids: (\d+)")


@dataclass(frozen=True, slots=True)
class Dumped:
    """What a dump says of a module: XLA's name of the generation, chips along the topology's axes, and the number of
    each partition's device in the torus, x slowest (empty where the dump does not say it).
    """

    generation: str
    shape: tuple[int, int, int]
    devices: tuple[int, ...]

    @property
    def topology(self) -> str:
        """As ``topology=`` takes it: ``v5e:4x4``."""
        sizes = self.shape[:2] if self.generation in FLAT else self.shape
        return f"{self.generation}:{'x'.join(map(str, sizes))}"


def dumped_beside(path: str) -> Dumped | None:
    """What stands beside a file of a dump; None where nothing does, or it names no generation that is known."""
    file = Path(path)
    module = _STAGE.sub("", file.name)
    if module == file.name:
        return None
    try:
        target = (file.parent / f"{module}.target_arguments.txt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    version, variant = _VERSION.search(target), _VARIANT.search(target)
    generation = GENERATIONS.get((version[1] if version else "", variant[1] if variant else ""))
    chips, hosts = (_sizes(target, name) for name in ("chips_per_host_bounds", "host_bounds"))
    if generation is None or chips is None or hosts is None:
        return None
    x, y, z = (one * other for one, other in zip(chips, hosts, strict=True))
    return Dumped(generation, (x, y, z), _devices(file.parent / f"{module}.execution_options.txt", (x, y, z)))


def _sizes(text: str, name: str) -> tuple[int, int, int] | None:
    found = re.search(rf"\b{name} \{{([^}}]*)\}}", text)
    sizes = {axis: int(size) for axis, size in re.findall(r"\b([xyz]): (\d+)", found[1])} if found else {}
    return (sizes["x"], sizes["y"], sizes["z"]) if len(sizes) == 3 else None


def _devices(options: Path, shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Device ids, which count cores, then x, y and z → numbers in the torus, x slowest."""
    try:
        ids = [int(each) for each in _DEVICE.findall(options.read_text(encoding="utf-8"))]
    except (OSError, UnicodeDecodeError):
        return ()
    x, y, z = shape
    cores, rest = divmod(max(ids, default=0) + 1, math.prod(shape))
    if rest or cores < 1 or len(set(ids)) != len(ids):
        return ()  # a program of part of the slice, or of several replicas
    return tuple(
        ((place % x * y + place // x % y) * z + place // (x * y)) * cores + core
        for place, core in (divmod(each, cores) for each in ids)
    )


def check_told(path: str, told: Dumped, slice_: Slice) -> None:
    """Check that a module was compiled for this slice.

    Raises:
        InvalidRequest: its dump says that it was compiled for another.
    """
    xla = slice_.chip.xla
    same = xla is None or xla.name == told.generation
    if not same or sorted(told.shape) != sorted(slice_.mesh_shape):
        asked = f"{slice_.chip.name} of {'x'.join(map(str, slice_.mesh_shape))}"
        raise InvalidRequest(
            "hlo", path, f"was compiled for {told.topology}, says its dump, and not for {asked}",
            f"use topology={told.topology}",
        )  # fmt: skip


def check_cores(path: str, text: str, slice_: Slice) -> None:
    """Check that the cores of a chip were as many devices as this chip's are, as far as a text tells that.

    Raises:
        InvalidRequest: they were not.
    """
    xla = slice_.chip.xla
    if slice_.chip.kind != "tpu" or xla is None:
        return
    split = SPLIT in text
    whose = f"{' and '.join(PAIRED)}, whose two cores are one device"
    name = slice_.chip.name
    if split and xla.name not in PAIRED:
        problem = f"splits its work between two cores ({SPLIT}), as only on {whose}: {name} is another TPU"
    elif not split and xla.name in PAIRED and (MATMUL in text or text.count(CYCLES) >= FEW):
        problem = f"splits no work between two cores ({SPLIT}), as every program for {whose}: {name} is another TPU"
    else:
        return
    raise InvalidRequest("hlo", path, problem, "give the topology that it was compiled for")


def module_in(folder: str) -> str:
    """The scheduled file of the one module of a dump.

    Raises:
        InvalidRequest: the folder has none, or several.
    """
    found = next((files for pattern in SCHEDULED if (files := sorted(Path(folder).glob(pattern)))), [])
    if not found:
        raise InvalidRequest("hlo", folder, "is a folder without scheduled HLO", DUMP_AGAIN)
    if len(found) > 1:
        names = ", ".join(each.name for each in found[:3]) + (", …" if len(found) > 3 else "")
        raise InvalidRequest(
            "hlo", folder, f"has {len(found)} modules: {names}", "name one, or those of a step as hlo=[FILE,FILE]"
        )
    return str(found[0])

"""GPUs of one NVSwitch node described to the compiler, none of which is on this machine.

XLA's GPU compiler reads its target as a text protobuf (``GpuTargetConfigProto``). It is written here from the chip's
datasheet and from what no datasheet holds (``gpus.yaml``).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from engines.core.chip import Chip
from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.core.slice import MeshShape, Slice

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from engines.compiled.cost.base import CostModel

FILE: Final = Path(__file__).with_name("gpus.yaml")
NOT_IN_THE_MESSAGE: Final = ("capability", "tensor_flops_per_cycle", "architecture")
OPTIONS: Final[Mapping[str, str | bool]] = {
    # Tuning runs kernels on a GPU, and there is none: every kernel gets the compiler's first choice.
    "xla_gpu_autotune_level": "0",
    # The two that JAX's page of GPU performance tips begins with: collectives beside computation, any matmul by Triton.
    "xla_gpu_enable_latency_hiding_scheduler": True,
    "xla_gpu_triton_gemm_any": True,
}


@dataclass(frozen=True, slots=True)
class GpuTarget:
    """GPUs joined by one switch. ``text`` is all that the compiler is told of one of them."""

    topology_name: str
    mesh_shape: MeshShape
    text: str
    memory_bytes: float

    cores: ClassVar[int] = 1
    options: ClassVar[Mapping[str, str | bool]] = OPTIONS

    @property
    def device_mesh(self) -> MeshShape:
        """The mesh that the model is cut over; to the switch all meshes of so many GPUs are the same."""
        return self.mesh_shape

    def asked(self, point: Point) -> Point:
        """Tensor parallelism is ``ws_1d`` with attention over heads (Shoeybi et al. 2019).

        Raises:
            Unsupported: pipeline stages, or tensor parallelism by another layout.
        """
        if point.pipeline_degree > 1:
            raise Unsupported(
                f"pipeline_parallel={point.pipeline_degree}: engine=compiled cuts no model into stages; "
                "leave it out, with tensor_parallel=num_chips"
            )
        if point.tensor_parallel is None or point.num_chips == 1:
            return point
        for key, meant in (("ffn_layout", "ws_1d"), ("attn_sharding", "heads")):
            if getattr(point, key) not in ("auto", meant):
                raise Unsupported(
                    f"{key}={getattr(point, key)}: tensor_parallel={point.tensor_parallel} is {key}={meant}; "
                    "leave one of them out"
                )
        return replace(point, ffn_layout="ws_1d", attn_sharding="heads")

    def make_mesh(self) -> "Mesh":
        """The mesh x, y, z over the node's GPUs, in the order of their numbers.

        Raises:
            Unsupported: the compiler refuses the target.
        """
        import jax
        import numpy as np
        from jax.experimental import topologies
        from jax.sharding import Mesh

        count = math.prod(self.mesh_shape)
        try:
            topology = topologies.get_topology_desc(platform="cuda", target_config=self.text, topology=f"1x1x{count}")
        except (jax.errors.JaxRuntimeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise Unsupported(f"num_chips={count}: the compiler refuses the target: {reason}") from None
        present: list[Any] = list(topology.devices)  # their numbers are not declared
        devices = sorted(present, key=lambda each: each.id)
        return Mesh(np.array(devices).reshape(self.mesh_shape), ("x", "y", "z"))

    def machine(self, chip: Chip) -> "CostModel":
        """A roofline and a switch.

        Raises:
            Unsupported: the datasheet lacks a bandwidth.
        """
        from engines.compiled.cost.gpu import gpu_of

        facts = _facts(chip)
        return gpu_of(chip, math.prod(self.mesh_shape), vector_flops_per_s(chip), facts["l2_cache_size"])

    def too_large(self, memory: Mapping[str, float]) -> str | None:
        """The GPU compiler passes programs of any size, so its figures are held against the datasheet's memory."""
        from engines.compiled.compile.compiler import peak_bytes

        needed = peak_bytes(memory)
        if needed <= self.memory_bytes:
            return None
        gib = 2**30
        kept = memory["output"] - memory["alias"]
        return (
            f"the program needs {needed / gib:.1f} GiB of {self.memory_bytes / gib:.1f} GiB a GPU: "
            f"{memory['argument'] / gib:.1f} of arguments, {memory['temp'] / gib:.1f} of temporaries and "
            f"{kept / gib:.1f} of output beyond what is donated."
        )


def gpu_target_of(slice_: Slice) -> GpuTarget:
    """Describe GPUs of one node.

    Raises:
        Unsupported: they are more than a node has, or nothing is known of the chip beyond its datasheet.
    """
    chip = slice_.chip
    if slice_.num_chips > chip.node_size:
        raise Unsupported(
            f"num_chips={slice_.num_chips}: engine=compiled compiles for the {chip.node_size} GPUs of one node; "
            f"use at most {chip.node_size}"
        )
    facts = _facts(chip)
    if chip.hbm_bytes is None or chip.hbm_bytes_per_s is None:
        raise Unsupported(f"hw={chip.name}: its datasheet lacks its memory or the bandwidth of it")
    return GpuTarget(chip.name, slice_.mesh_shape, _text(chip, facts), chip.hbm_bytes)


def vector_flops_per_s(chip: Chip) -> float:
    """Peak of float32 arithmetic outside tensor cores: lanes × 2 (a multiply and an add) × clock.

    Raises:
        Unsupported: nothing is known of the chip beyond its datasheet.
    """
    facts = _facts(chip)
    return float(facts["core_count"] * facts["fpus_per_core"] * 2 * _clock_hz(chip, facts))


def _clock_hz(chip: Chip, facts: Mapping[str, Any]) -> float:
    """The clock at which tensor cores reach the datasheet's float16 peak."""
    return chip.peak("float16") / float(facts["core_count"] * facts["tensor_flops_per_cycle"])


def _text(chip: Chip, facts: Mapping[str, Any]) -> str:
    device: dict[str, Any] = {key: value for key, value in facts.items() if key not in NOT_IN_THE_MESSAGE}
    assert chip.hbm_bytes is not None
    assert chip.hbm_bytes_per_s is not None
    device |= {
        "memory_bandwidth": int(chip.hbm_bytes_per_s),
        "device_memory_size": int(chip.hbm_bytes),
        "clock_rate_ghz": round(_clock_hz(chip, facts) / 1e9, 4),
    }
    major, minor = facts["capability"]
    lines = [f"  {key}: {value}" for key, value in device.items()]
    lines.append(f"  cuda_compute_capability {{ major: {major} minor: {minor} }}")
    versions = [
        "{} {{ major: {} minor: {} patch: {} }}".format(name, *parts) for name, parts in _file()["libraries"].items()
    ]
    body = "\n".join(["gpu_device_info {", *lines, "}", 'platform_name: "CUDA"', *versions])
    return f'{body}\ndevice_description_str: "{chip.name}"\n'


def _facts(chip: Chip) -> dict[str, Any]:
    """What the compiler asks beyond the datasheet, of this chip.

    Raises:
        Unsupported: nothing is known of it.
    """
    known = _file()
    if chip.name not in known["chips"]:
        raise Unsupported(f"hw={chip.name}: of GPUs engine=compiled compiles for {', '.join(known['chips'])}")
    mine = known["chips"][chip.name]
    return {**known["every"], **known["architectures"][mine["architecture"]], **mine}


@cache
def _file() -> Mapping[str, Any]:
    import yaml

    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content

"""GPUs of one NVSwitch node described to XLA's GPU compiler; none of them has to be present.

The compiler reads its target as a text protobuf (``GpuTargetConfigProto``), which is written here from the chip's
datasheet and its ``cuda`` part.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from engines.compiled.target.memory import peak_bytes
from engines.core.chip import Chip, cuda_of, tensor_core_clock_hz
from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.core.slice import MeshShape, Slice
from engines.transformer.partition.resolve import over_heads

if TYPE_CHECKING:
    from jax.sharding import Mesh

OPTIONS: Final[Mapping[str, str | bool]] = {
    # Autotuning runs kernels on a GPU, and there is none: every kernel gets the compiler's first choice.
    "xla_gpu_autotune_level": "0",
    # The first two of JAX's GPU performance tips: collectives overlap computation, and Triton compiles any matmul.
    "xla_gpu_enable_latency_hiding_scheduler": True,
    "xla_gpu_triton_gemm_any": True,
}
EVERY_GPU: Final[Mapping[str, int]] = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "block_dim_limit_x": 2147483647,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "threads_per_core_limit": 2048,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
    "shared_memory_per_block": 49152,  # 48 KiB; a kernel opts in to more
}
"""Limits of compute capability 8.0, 9.0 and 10.0 alike (CUDA C++ Programming Guide, "Technical Specifications per
Compute Capability")."""
LIBRARIES: Final = {"runtime_version": (12, 9, 0), "dnn_version_info": (9, 8, 0)}
"""Versions of CUDA and cuDNN that the compiler's CUDA 12 builds are made against."""


@dataclass(frozen=True, slots=True)
class GpuTarget:
    """GPUs joined by one switch. ``text`` describes one of them to the compiler."""

    topology_name: str
    mesh_shape: MeshShape
    text: str
    memory_bytes: float

    cores: ClassVar[int] = 1
    places: ClassVar[tuple[int, ...]] = ()
    options: ClassVar[Mapping[str, str | bool]] = OPTIONS

    @property
    def device_mesh(self) -> MeshShape:
        """The mesh that the model is partitioned over; on a switch every mesh of as many GPUs is equally fast."""
        return self.mesh_shape

    def resolve(self, point: Point) -> Point:
        """Tensor parallelism is ``ws_1d`` with attention over heads (Shoeybi et al. 2019).

        Raises:
            Unsupported: tensor parallelism with another layout.
        """
        if point.tensor_parallel is None or point.num_chips == 1:
            return point
        heads = over_heads(point.model)
        for key, meant in (("ffn_layout", "ws_1d"), ("attn_sharding", heads)):
            if getattr(point, key) not in ("auto", meant):
                raise Unsupported(
                    f"{key}={getattr(point, key)}: tensor_parallel={point.tensor_parallel} implies {key}={meant}; "
                    "leave one of them out"
                )
        return replace(point, ffn_layout="ws_1d", attn_sharding=heads)

    def make_mesh(self) -> "Mesh":
        """The mesh x, y, z over the node's GPUs, in the order of their ids.

        Raises:
            Unsupported: the compiler rejects the target.
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
            # Without it JAX's plugin looks for CUDA when it is loaded, and is not there where that is missing.
            hint = "" if os.environ.get("JAX_PLATFORMS") else "; set JAX_PLATFORMS=cpu before Python starts"
            raise Unsupported(f"num_chips={count}: the compiler rejects the target: {reason}{hint}") from None
        present: list[Any] = list(topology.devices)  # the base class does not declare the ids
        devices = sorted(present, key=lambda each: each.id)
        return Mesh(np.array(devices).reshape(self.mesh_shape), ("x", "y", "z"))

    def too_large(self, memory: Mapping[str, float]) -> str | None:
        """The GPU compiler accepts programs of any size, so its figures are compared with the datasheet's memory."""
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
        Unsupported: there are more GPUs than a node has, or the chip's file lacks a figure.
    """
    chip = slice_.chip
    chip.check_full_power()
    if slice_.num_chips > chip.node_size:
        raise Unsupported(
            f"num_chips={slice_.num_chips}: engine=compiled compiles for the {chip.node_size} GPUs of one node; "
            f"use at most {chip.node_size}"
        )
    hbm_bytes = chip.require("hbm_bytes", chip.hbm_bytes)
    return GpuTarget(chip.name, slice_.mesh_shape, _target_config(chip, hbm_bytes), hbm_bytes)


def _target_config(chip: Chip, hbm_bytes: float) -> str:
    cuda = cuda_of(chip)
    device: dict[str, Any] = {
        **EVERY_GPU,
        "fpus_per_core": cuda.float32_lanes,
        "shared_memory_per_core": cuda.shared_memory_bytes,
        "shared_memory_per_block_optin": cuda.shared_memory_bytes_per_block,
        "core_count": cuda.multiprocessors,
        "l2_cache_size": cuda.l2_bytes,
        "memory_bandwidth": int(chip.require("hbm_bytes_per_s", chip.hbm_bytes_per_s)),
        "device_memory_size": int(hbm_bytes),
        "clock_rate_ghz": round(tensor_core_clock_hz(chip, cuda) / 1e9, 4),
    }
    major, minor = cuda.compute_capability
    lines = [f"  {key}: {value}" for key, value in device.items()]
    lines.append(f"  cuda_compute_capability {{ major: {major} minor: {minor} }}")
    versions = [f"{name} {{ major: {x} minor: {y} patch: {z} }}" for name, (x, y, z) in LIBRARIES.items()]
    body = "\n".join(["gpu_device_info {", *lines, "}", 'platform_name: "CUDA"', *versions])
    return f'{body}\ndevice_description_str: "{chip.name}"\n'

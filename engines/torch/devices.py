"""Which devices PyTorch sees, whether they are the requested chips, and which errors mean out of memory."""

import os

import torch

from engines.core.dtypes import BYTES_PER_ELEMENT
from engines.core.errors import OutOfMemory, Unsupported
from engines.core.point import Point
from engines.core.text import significant
from engines.host.nvidia import check_present, power_limits
from engines.torch.cache import cache_bytes

MEMORY_MESSAGES = (
    "DefaultCPUAllocator",
    "out of memory",
    "std::bad_alloc",
    "Cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def check_devices(point: Point, here: int) -> None:
    """Check that this machine has the devices for the ``here`` ranks that run on it.

    Raises:
        Unsupported: it has other devices, or fewer.
        OutOfMemory: on hw=cpu, the weights and the cache exceed the machine's memory.
    """
    if point.chip.kind == "cpu":
        _check_host_memory(point)
        return
    if point.chip.kind != "gpu":
        raise Unsupported(f"hw={point.chip.name}: engine=torch runs on GPUs and on hw=cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    check_present(point.chip, [torch.cuda.get_device_name(number) for number in range(count)], power_limits())
    if count < here:
        raise Unsupported(f"num_chips={point.num_chips}: PyTorch sees {count} GPUs for {here} ranks; use fewer chips")


def device_of(point: Point, local_rank: int) -> torch.device:
    """The device of a rank on this machine, set as the current device."""
    if point.chip.kind == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    # cuDNN's attention builds a plan for each length, and every decode step has another length.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of PyTorch, NCCL or the host's allocator means out of memory.

    Its context is checked as well: if memory runs out while a CUDA graph is recorded, the error that is raised says
    that the capture failed.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY_MESSAGES):
        return True
    return error.__context__ is not None and is_out_of_memory(error.__context__)


def does_not_fit(point: Point, reason: str) -> OutOfMemory:
    """The error for a point that does not fit."""
    return OutOfMemory(
        f"batch_size={point.batch_size}: {point.model.name} does not fit {point.num_chips} × {point.chip.name} "
        f"({' '.join(reason.split())[:300]}); use more chips, a smaller batch or int8 weights"
    )


def _check_host_memory(point: Point) -> None:
    # Linux overcommits and would kill a process instead of failing the allocation, so check beforehand.
    needed, what = cache_bytes(point), "the cache is"
    if point.offload != "nvme":
        what, needed = "weights and cache are", needed + point.model.params * BYTES_PER_ELEMENT[point.weight_dtype]
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        raise does_not_fit(
            point,
            f"{what} {significant(needed / 1e9)} GB, this machine has {significant(present / 1e9)}",
        )

"""Peak matmul rate and copy bandwidth of a device, measured in this process."""

import time
from collections.abc import Callable
from functools import cache
from typing import Final

import torch
from torch import Tensor

MEASURE_S: Final = 0.3
MATRIX_SIZES: Final = {"cpu": (256, 1024), "cuda": (1024, 8192)}
"""Larger matrices reach more; one that would take too long (a dtype without fast matmuls) is skipped."""
COPY_BYTES: Final = {"cpu": 1 << 27, "cuda": 1 << 30}
"""Larger than any cache."""
LAUNCHES: Final = {"cpu": 1, "cuda": 8}
"""Launched together and synchronized once, so that on a GPU launch latency does not count."""


def measured_peaks(device: torch.device, dtype: torch.dtype) -> tuple[float, float] | None:
    """(FLOP/s, bytes/s read and written) of the device, the best of about 0.3 s each; measured once per process.

    None where a GPU has too little free memory for it.
    """
    try:
        return _peaks(device, dtype)
    except torch.OutOfMemoryError:
        return None


@cache
@torch.inference_mode()
def _peaks(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    flops_per_s = 0.0
    for size in MATRIX_SIZES[device.type]:
        if flops_per_s and 2.0 * size**3 / flops_per_s > MEASURE_S:
            break
        flops_per_s = max(flops_per_s, _matmul_flops_per_s(size, device, dtype))
    count = COPY_BYTES[device.type] // dtype.itemsize
    source = _random(count, dtype=dtype, device=device)
    target = torch.empty_like(source)
    copy_s = _best_s(lambda: target.copy_(source), device)
    return flops_per_s, 2.0 * count * dtype.itemsize / copy_s


def wait_for(device: torch.device) -> None:
    """Return when all work on the device has completed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _matmul_flops_per_s(size: int, device: torch.device, dtype: torch.dtype) -> float:
    square = _random(size, size, dtype=dtype, device=device)
    product = torch.empty_like(square)
    return 2.0 * size**3 / _best_s(lambda: torch.mm(square, square, out=product), device)


def _random(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Random values: on constant data a chip draws less power and runs faster than on weights."""
    return torch.randn(shape, dtype=dtype, device=device)


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    """The shortest time of one run in seconds, over at least three series after a warm-up run."""
    work()
    wait_for(device)
    best, series, launches = float("inf"), 0, LAUNCHES[device.type]
    end = time.perf_counter() + MEASURE_S
    while series < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(launches):
            work()
        wait_for(device)
        best, series = min(best, (time.perf_counter() - start) / launches), series + 1
    return best

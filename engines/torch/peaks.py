"""What a device reaches: matmul rate and copy bandwidth, measured in this process."""

import time
from collections.abc import Callable
from functools import cache
from typing import Final

import torch

MEASURE_S: Final = 0.3
MATRIX_SIZES: Final = {"cpu": (256, 1024), "cuda": (1024, 8192)}
"""The larger reaches more. Where a format has no fast product it would take long, and is left out."""
COPY_BYTES: Final = {"cpu": 1 << 27, "cuda": 1 << 30}
"""Beyond any processor's cache."""


@cache
@torch.inference_mode()
def measured_peaks(device: torch.device, dtype: torch.dtype) -> tuple[float, float] | None:
    """(FLOP/s, bytes/s read and written) of the device, the best of about 0.3 s each; measured once a process.

    None where a GPU has too little memory left for it.
    """
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < 3 * COPY_BYTES["cuda"]:
        return None
    flops_per_s = 0.0
    for size in MATRIX_SIZES[device.type]:
        if flops_per_s and 2.0 * size**3 / flops_per_s > MEASURE_S:
            break
        flops_per_s = max(flops_per_s, _matmul_flops_per_s(size, device, dtype))
    count = COPY_BYTES[device.type] // dtype.itemsize
    source = torch.full((count,), 0.5, dtype=dtype, device=device)
    target = torch.empty_like(source)
    copy_s = _best_s(lambda: target.copy_(source), device)
    return flops_per_s, 2.0 * count * dtype.itemsize / copy_s


def wait_for(device: torch.device) -> None:
    """Return when all that was started on the device has ended."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _matmul_flops_per_s(size: int, device: torch.device, dtype: torch.dtype) -> float:
    square = torch.full((size, size), 0.5, dtype=dtype, device=device)
    product = torch.empty_like(square)
    return 2.0 * size**3 / _best_s(lambda: torch.mm(square, square, out=product), device)


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    """The shortest run in seconds, of at least three after a first."""
    work()
    wait_for(device)
    best, runs = float("inf"), 0
    end = time.perf_counter() + MEASURE_S
    while runs < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        wait_for(device)
        best = min(best, time.perf_counter() - start)
        runs += 1
    return best

"""Peak matmul rate and copy bandwidth of a device, measured in this process."""

import time
from collections.abc import Callable
from functools import cache
from typing import Final

import torch
from torch import Tensor

MEASURE_S: Final = 0.3
LONGEST_S: Final = 1.0
"""Expected time of one matmul up to which it is measured."""
MATRIX_SIZES: Final = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 8192)}
"""Sides of square matrices. Where a dtype has no fast matmul, the larger ones are left out (:data:`LONGEST_S`)."""
COPY_BYTES: Final = {"cpu": 1 << 27, "cuda": 1 << 30}
"""Larger than any cache."""
LAUNCHES: Final = {"cpu": 1, "cuda": 8}
"""Launched together and synchronized once, so that on a GPU launch latency does not count."""


Product = tuple[int, int, int]
"""Sizes m, k, n of a matmul [m, k]·[k, n]."""


def measured_peaks(device: torch.device, dtype: torch.dtype, product: Product) -> tuple[float, float] | None:
    """(FLOP/s, bytes/s read and written) of the device, the best of about 0.3 s each; measured once a process.

    A CPU's FLOP/s is the best of several squares and of the timed program's own ``product`` (up to
    :data:`LONGEST_S`), so that no program that consists of such matmuls exceeds it. None where a GPU has too little
    memory left for it.
    """
    try:
        return _peaks(device, dtype, product if device.type == "cpu" else None)
    except torch.OutOfMemoryError:
        return None


@cache
@torch.inference_mode()
def _peaks(device: torch.device, dtype: torch.dtype, product: Product | None) -> tuple[float, float]:
    products = [(side, side, side) for side in MATRIX_SIZES[device.type]] + ([product] if product else [])
    flops_per_s = 0.0
    for m, k, n in products:
        if not flops_per_s or 2.0 * m * k * n / flops_per_s <= LONGEST_S:
            flops_per_s = max(flops_per_s, _matmul_flops_per_s((m, k, n), device, dtype))
    count = COPY_BYTES[device.type] // dtype.itemsize
    source = _random(count, dtype=dtype, device=device)
    target = torch.empty_like(source)
    copy_s = _best_s(lambda: target.copy_(source), device)
    return flops_per_s, 2.0 * count * dtype.itemsize / copy_s


def wait_for(device: torch.device) -> None:
    """Return when all work on the device has completed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _matmul_flops_per_s(product: Product, device: torch.device, dtype: torch.dtype) -> float:
    m, k, n = product
    first, second = _random(m, k, dtype=dtype, device=device), _random(k, n, dtype=dtype, device=device)
    out = torch.empty(m, n, dtype=dtype, device=device)
    return 2.0 * m * k * n / _best_s(lambda: torch.mm(first, second, out=out), device)


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

"""The energy that this machine's NVIDIA GPUs use, as their driver's library NVML states it."""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

TOTAL_ENERGY: Final = "nvml_total_energy"
POWER: Final = "nvml_power"
"""Where a figure is from: the GPUs' own counters of energy, or the integral of their power."""
JOULES_OF_MILLI: Final = 1e-3
POLL_S: Final = 0.1
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
ORDER: Final = "CUDA_DEVICE_ORDER"


class EnergyMeter:
    """Joules of some GPUs together, from an unknown beginning: differences of :meth:`joules` count.

    GPUs from Volta on count their energy themselves. Of others the power is read every :data:`POLL_S` seconds, in a
    thread, and integrated (trapezoids). ``source`` says which.
    """

    def __init__(self, nvml: Any, handles: Sequence[Any]) -> None:
        """``handles`` are NVML's, of GPUs that state their energy or their power.

        Raises:
            nvml.NVMLError: they state neither.
        """
        self._nvml, self._handles = nvml, handles
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        try:
            self._counted()
            self.source = TOTAL_ENERGY
        except nvml.NVMLError:
            self.source = POWER
            self._total, self._last = 0.0, (time.monotonic(), self._watts())
            self._thread = threading.Thread(target=self._poll, daemon=True)
            self._thread.start()

    def joules(self) -> float:
        """Energy up to now."""
        if self.source == TOTAL_ENERGY:
            return self._counted()
        self._integrate()
        return self._total

    def close(self) -> None:
        """Stop reading."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._nvml.nvmlShutdown()

    def _counted(self) -> float:
        milli = sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption(each) for each in self._handles)
        return float(milli) * JOULES_OF_MILLI

    def _watts(self) -> float:
        milli = sum(self._nvml.nvmlDeviceGetPowerUsage(each) for each in self._handles)
        return float(milli) * JOULES_OF_MILLI

    def _integrate(self) -> None:
        with self._lock:
            now, watts = time.monotonic(), self._watts()
            before, watts_before = self._last
            self._total += (now - before) * (watts + watts_before) / 2
            self._last = now, watts

    def _poll(self) -> None:
        while not self._ended.wait(POLL_S):
            self._integrate()


def energy_meter(count: int) -> EnergyMeter | None:
    """A meter of the first ``count`` GPUs that CUDA shows to this process.

    None where nobody can say: NVML is not installed (``nvidia-ml-py``) or finds no driver, there are fewer GPUs, only
    parts of them are shown (MIG), or they differ and CUDA may number them in another order than NVML.
    """
    try:
        import pynvml as nvml
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        handles = _handles(nvml, os.environ)[:count]
        if len(handles) == count:
            return EnergyMeter(nvml, handles)
    except nvml.NVMLError:
        pass  # a GPU that CUDA_VISIBLE_DEVICES names is not there, or states neither energy nor power
    nvml.nvmlShutdown()
    return None


def _handles(nvml: Any, environment: Mapping[str, str]) -> list[Any]:
    """The GPUs that CUDA shows, in its order; none where it cannot be told."""
    every = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    visible = environment.get(VISIBLE)
    names = None if visible is None else [each.strip() for each in visible.split(",") if each.strip()]
    if names is not None and any(each.startswith("MIG") for each in names):
        return []
    by_uuid = names is not None and all(each.startswith("GPU-") for each in names)
    kinds = {nvml.nvmlDeviceGetName(each) for each in every}
    if not by_uuid and len(kinds) > 1 and environment.get(ORDER) != "PCI_BUS_ID":
        return []
    if names is None:
        return every
    if by_uuid:
        return [nvml.nvmlDeviceGetHandleByUUID(each) for each in names]
    if not all(each.isdigit() and int(each) < len(every) for each in names):
        return []
    return [every[int(each)] for each in names]

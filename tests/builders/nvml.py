"""A module that stands in for NVML, of GPUs that draw what is known."""

import sys


class Nvml:
    """GPUs that draw ``watts`` each; ``now`` is in seconds. Without a counter, they only state their power."""

    class NVMLError(Exception):
        """As of the library."""

    def __init__(self, watts, *, counts=True, names=None, clock=None):
        self.watts, self.counts, self.open = watts, counts, 0
        self.names = names or ["NVIDIA H100 80GB HBM3"] * len(watts)
        self.clock = clock or (lambda: 0.0)

    def nvmlInit(self):
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetCount(self):
        return len(self.watts)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return int(uuid.removeprefix("GPU-"))

    def nvmlDeviceGetName(self, handle):
        return self.names[handle]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if not self.counts:
            raise self.NVMLError("Not Supported")
        return int(1000 * (5000 + self.watts[handle] * self.clock()))

    def nvmlDeviceGetPowerUsage(self, handle):
        return int(1000 * self.watts[handle])


def stand_in(monkeypatch, *args, **keys):
    """The library, as if these GPUs were here and CUDA showed all of them."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    found = Nvml(*args, **keys)
    monkeypatch.setitem(sys.modules, "pynvml", found)
    return found

"""``hw=here``: which choice of ``conf/hw`` this machine's GPUs are."""

from bench.sweep.catalog import hw_of, load_chip, names
from engines.core.errors import Unsupported
from engines.host.nvidia import device_names


def hw_here(nvidia_smi: str = "nvidia-smi") -> str:
    """The hw of this machine's GPUs.

    Raises:
        Unsupported: there are none, they differ, or no file in ``conf/hw`` has their name.
    """
    present = sorted(set(device_names(nvidia_smi)))
    if not present:
        raise Unsupported("hw=here: nvidia-smi lists no GPU on this machine; name a chip of conf/hw")
    found = hw_of(present[0])
    if found is None or len(present) > 1:
        known = [name for hw in names("hw") if load_chip(hw).kind == "gpu" for name in load_chip(hw).device_names]
        raise Unsupported(
            f"hw=here: {', '.join(present)} is not one of {', '.join(known)}; for another GPU write a file in conf/hw"
        )
    return found

"""``hw=here``: the choice of ``conf/hw`` for this machine's GPUs."""

from bench.sweep.catalog import hw_of, load_chip, names
from engines.core.errors import Unsupported
from engines.host.nvidia import device_names


def hw_here(nvidia_smi: str = "nvidia-smi") -> str:
    """The choice of ``conf/hw`` for this machine's GPUs.

    Raises:
        Unsupported: there are none, they differ, or no file in ``conf/hw`` has their name.
    """
    present = sorted(set(device_names(nvidia_smi)))
    if not present:
        raise Unsupported("hw=here: nvidia-smi lists no GPU on this machine; use a chip of conf/hw, such as hw=cpu")
    found = hw_of(present[0])
    if found is None or len(present) > 1:
        known = [name for hw in names("hw") if load_chip(hw).kind == "gpu" for name in load_chip(hw).device_names]
        raise Unsupported(
            f"hw=here: {', '.join(present)} is not one of {', '.join(known)}; add a file to conf/hw for another GPU"
        )
    return found

"""Memory of one device that a compiled program needs, from the compiler's own analysis."""

from collections.abc import Mapping


def peak_bytes(memory: Mapping[str, float]) -> float:
    """Arguments, temporaries, outputs and code of one device, in bytes; donated buffers count once."""
    return memory["argument"] + memory["temp"] + memory["output"] - memory["alias"] + memory["generated_code"]

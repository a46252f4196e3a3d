"""A chip's datasheet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engines.core.errors import InvalidRequest, Unsupported

ChipKind = Literal["tpu", "gpu", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One chip; every field is a key of ``conf/hw/*.yaml``, where its source stands beside it.

    Bandwidths are one direction, in bytes per second. A TPU has ``torus_dims`` axes with two links each
    (``link_bytes_per_s`` a link). A GPU reaches the ``node_size`` GPUs of its NVLink/NVSwitch domain at
    ``node_bytes_per_s`` and all others at ``network_bytes_per_s``. A cpu has no datasheet: its peaks are measured in
    the run that needs them, so the figures are None.
    """

    name: str
    kind: ChipKind
    peak_flops_per_s: Mapping[str, float]
    hbm_bytes: float | None
    hbm_bytes_per_s: float | None
    clock_hz: float | None = None
    torus_dims: int = 0
    max_chips: int = 1
    link_bytes_per_s: float | None = None
    node_size: int = 1
    node_bytes_per_s: float | None = None
    network_bytes_per_s: float | None = None
    sources: Mapping[str, str]

    def __post_init__(self) -> None:
        for dtype, value in self.peak_flops_per_s.items():
            if value <= 0:
                raise InvalidRequest(f"hw.peak_flops_per_s.{dtype}", value, "is not positive", "give FLOP/s above 0")
        for name in ("hbm_bytes", "hbm_bytes_per_s", "clock_hz", "link_bytes_per_s", "node_bytes_per_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InvalidRequest(f"hw.{name}", value, "is not positive", "give a figure above 0")
        if self.kind == "tpu" and self.torus_dims not in (2, 3):
            raise InvalidRequest("hw.torus_dims", self.torus_dims, "is no TPU interconnect", "use 2 or 3")

    def __hash__(self) -> int:
        # The mappings cannot be hashed; equality still compares every figure.
        return hash((self.name, self.kind, self.hbm_bytes, self.hbm_bytes_per_s))

    def peak(self, dtype: str) -> float:
        """Dense peak in FLOP/s for matmuls whose activations are ``dtype``.

        Raises:
            Unsupported: the datasheet states no peak for that dtype.
        """
        try:
            return self.peak_flops_per_s[dtype]
        except KeyError:
            known = ", ".join(self.peak_flops_per_s) or "none"
            raise Unsupported(f"hw={self.name} states no peak for {dtype} (it states: {known})") from None

"""How fast a link to host memory is beside its datasheet."""

from typing import Final

HOST_LINK_SHARE: Final = 0.85
"""Share of a host link's datasheet rate that large copies reach; a prior, no row has set it.

A PCI Express packet of 256 bytes carries 20 to 28 bytes of header, check and framing (PCI Express Base Specification,
transaction and data link layers), which leaves 0.90 to 0.93; the copy engine's gaps between packets take the rest.
"""

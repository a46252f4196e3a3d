"""engine=maxtext: the decode step of an installed MaxText."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from engines.compiled.peers.engine import SCRIPTS, PeerEngine
from engines.compiled.peers.llama import check_llama
from engines.core.errors import Unsupported
from engines.core.point import Point


class MaxTextEngine(PeerEngine):
    """``MaxEngine``'s step, heads over tensor parallelism and the batch over what is left of the slice."""

    name: ClassVar[str] = "maxtext"
    libraries: ClassVar[Sequence[str]] = ("jax", "jaxlib", "libtpu")
    script: ClassVar[Path] = SCRIPTS / "maxtext_step.py"
    packages: ClassVar[Sequence[str]] = ("jax", "jaxlib", "libtpu", "maxtext")

    def __init__(self, *, arguments: Sequence[str], **settings: Any) -> None:
        """Keys of the engine's file in ``conf/engine``; ``settings`` are those of every peer."""
        super().__init__(**settings)
        self.arguments = list(arguments)
        self.options = {"arguments": self.arguments, "depths": list(self.depths)}

    def asked(self, point: Point) -> dict[str, Any]:
        """Llama's architecture, decode alone, with the formats of its own quantisation."""
        check_llama(point, self.name)
        if point.phase != "decode":
            raise Unsupported(
                f"phase={point.phase}: engine={self.name} compiles its decode step alone; use phase=decode"
            )
        devices = point.slice().num_chips * point.chip.require("xla", point.chip.xla).cores
        return {"arguments": self.arguments, "tensor_parallel": math.gcd(devices, point.model.num_kv_heads)}

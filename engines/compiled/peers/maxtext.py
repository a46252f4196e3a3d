"""engine=maxtext: the decode step of an installed MaxText."""

import math
from collections.abc import Mapping, Sequence
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

    def __init__(
        self,
        *,
        arguments: Sequence[str],
        python: str | None,
        depths: Sequence[int],
        cache_dir: str | None,
        compiler_options: Mapping[str, Any] | None,
        run_timeout_s: float,
        **_settings: Any,
    ) -> None:
        """Keys of the engine's file in ``conf/engine``; other settings are for the harness."""
        super().__init__(
            python=python,
            depths=depths,
            cache_dir=cache_dir,
            compiler_options=compiler_options,
            run_timeout_s=run_timeout_s,
        )
        self.arguments = list(arguments)
        self.options = {"arguments": self.arguments, "depths": list(self.depths)}

    def asked(self, point: Point) -> dict[str, Any]:
        """Llama's architecture, decode alone, with the formats of its own quantisation."""
        check_llama(point.model, self.name)
        if point.phase != "decode":
            raise Unsupported(
                f"phase={point.phase}: engine={self.name} compiles its decode step alone; use phase=decode"
            )
        for name, allowed in (
            ("weight_dtype", ("bfloat16", "int8")),
            ("kv_dtype", ("bfloat16", "int8")),
            ("act_dtype", ("bfloat16",)),
        ):
            if getattr(point, name) not in allowed:
                raise Unsupported(f"{name}={getattr(point, name)}: engine={self.name} has {' and '.join(allowed)}")
        devices = point.slice().num_chips * point.chip.require("xla", point.chip.xla).cores
        return {"arguments": self.arguments, "tensor_parallel": math.gcd(devices, point.model.num_kv_heads)}

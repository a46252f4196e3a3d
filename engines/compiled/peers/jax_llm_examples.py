"""engine=jax-llm-examples: the Llama of github.com/jax-ml/jax-llm-examples, from a folder with its source."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from engines.compiled.peers.engine import SCRIPTS, PeerEngine
from engines.compiled.peers.llama import check_llama
from engines.core.digest import digest
from engines.core.errors import InvalidRequest
from engines.core.point import Point

MODEL: Final = Path("llama3") / "llama3_jax" / "model.py"


class JaxLlmExamplesEngine(PeerEngine):
    """Its ``decode_step`` and ``forward`` over its own mesh: batch, key/value heads, and the rest of the tensors."""

    name: ClassVar[str] = "jax-llm-examples"
    libraries: ClassVar[Sequence[str]] = ("jax", "jaxlib", "libtpu")
    script: ClassVar[Path] = SCRIPTS / "jax_llm_examples.py"
    packages: ClassVar[Sequence[str]] = ("jax", "jaxlib", "libtpu", "etils", "tensorstore", "flatbuffers")

    def __init__(self, *, folder: str | None, mesh: Sequence[int] | None, kernels: bool, **settings: Any) -> None:
        """Keys of the engine's file in ``conf/engine``; ``settings`` are those of every peer."""
        super().__init__(**settings)
        self.folder, self.mesh, self.kernels = folder, mesh, kernels
        self.options = {"mesh": mesh, "kernels": kernels, "depths": list(self.depths)}

    def asked(self, point: Point) -> dict[str, Any]:
        """Llama's architecture, int8 or bfloat16 weights and cache, bfloat16 activations."""
        check_llama(point, self.name)
        devices = point.slice().num_chips * point.chip.require("xla", point.chip.xla).cores
        mesh = self.mesh or _mesh(devices, point.model.num_kv_heads)
        if len(mesh) != 3 or math.prod(mesh) != devices:
            raise InvalidRequest("engine.mesh", list(mesh), f"has not {devices} devices", "use [batch,y,z] that has")
        return {"folder": str(self._source()), "mesh": list(mesh), "kernels": self.kernels}

    def peer_id(self) -> str:
        """A digest of its source."""
        source = self._source() / MODEL.parent
        return digest({path.name: path.read_text(encoding="utf-8") for path in sorted(source.glob("*.py"))})

    def _source(self) -> Path:
        if not self.folder:
            raise InvalidRequest(
                "engine.folder", "", "is not given", "give a clone of github.com/jax-ml/jax-llm-examples"
            )
        folder = Path(self.folder).expanduser().absolute()
        if not (folder / MODEL).is_file():
            raise InvalidRequest("engine.folder", self.folder, f"has no {MODEL}", "give a clone of jax-llm-examples")
        return folder


def _mesh(devices: int, kv_heads: int) -> tuple[int, int, int]:
    """No batch axis, key/value heads over as many devices as divide both; their own main program takes 4."""
    heads = math.gcd(devices, kv_heads)
    return 1, heads, devices // heads

"""The engine that runs FasterTransformer's ``multi_gpu_gpt_example``, which the user builds."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.external.engine import ExternalEngine, Timed
from engines.external.fastertransformer.files import CONFIG_FILE, PROMPT_FILE, check_supported, write_files
from engines.external.fastertransformer.output import read_latency_s


class FasterTransformerEngine(ExternalEngine):
    """Prefill and decode of a whole batch, as the program times them."""

    name: ClassVar[str] = "fastertransformer"
    runtime: ClassVar[str | None] = "fastertransformer"
    timed_by: ClassVar[str] = "multi_gpu_gpt_example"

    def __init__(
        self,
        *,
        binary: str | None = None,
        mpirun: str = "mpirun",
        mpirun_arguments: Sequence[str] = (),
        model_dir: str = "",
        sampling: Mapping[str, float] | None = None,
        run_timeout_s: float = 600,
        nvidia_smi: str = "nvidia-smi",
        seed: int = 0,
        **_settings: Any,
    ) -> None:
        """See ``conf/engine/fastertransformer.yaml``; other settings are for the harness."""
        super().__init__(run_timeout_s=run_timeout_s, nvidia_smi=nvidia_smi)
        self.binary = None if binary is None else Path(binary).expanduser().absolute()
        self.mpirun = [mpirun, *mpirun_arguments]
        self.model_dir = model_dir
        self.sampling = {"top_k": 1, "top_p": 0.0, "temperature": 1.0, **(sampling or {})}
        self.seed = seed

    def check_supported(self, point: Point) -> None:
        """Raise Unsupported if the program cannot run the point, or has not been built."""
        check_supported(point)
        if self.binary is None:
            raise Unsupported(
                "engine.binary=null: is required; build FasterTransformer's multi_gpu_gpt_example and use "
                "engine.binary=PATH"
            )
        if not self.binary.is_file():
            raise Unsupported(f"engine.binary={self.binary}: is not a file; use the path of multi_gpu_gpt_example")

    def program_facts(self) -> Mapping[str, Any]:
        """A digest of the binary, which has no version number."""
        return {} if self.binary is None else {"binary": sha256(self.binary.read_bytes()).hexdigest()}

    def command(self, point: Point, folder: Path) -> list[str]:
        """Write ``gpt_config.ini`` and ``start_ids.csv``; one rank per chip, under mpirun."""
        write_files(folder, point, self.model_dir, self.sampling, self.seed)
        return [*self.mpirun, "-n", str(point.num_chips), str(self.binary), CONFIG_FILE, PROMPT_FILE]

    def read(self, point: Point, folder: Path, output: str) -> Timed:
        """The time in the program's ``[INFO]`` line."""
        return Timed(latency_s=read_latency_s(output, point), details={"sampling": self.sampling})

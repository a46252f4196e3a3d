"""Engines that run an external benchmark program and read the time that it reports.

Such an engine is an estimator with source ``measured``. The program does its own warm-up and sampling, not the
harness; ``details.timed_by`` of a row names it.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Final

from engines.core.digest import digest
from engines.core.dtypes import ACTIVATION_DTYPES
from engines.core.engine import Estimate, Estimator, Facts
from engines.core.errors import OutOfMemory, ShardbenchError, TimedOut, Unsupported
from engines.core.extension import check_extensions
from engines.core.model import Model
from engines.core.point import Point
from engines.core.row import Source, Status
from engines.core.versions import versions_of
from engines.core.weight_groups import check_one_weight_format
from engines.host.energy_trace import traced_energy
from engines.host.nvidia import check_present, device_names, power_limits
from engines.host.program import ExternalProgram, ProgramFailed
from engines.host.scratch import ScratchFolder

MODEL_KEYS: Final = tuple(name for name in Model.__dataclass_fields__ if name != "encoder")
"""Keys of a model that a program reads which runs any family of transformers, by its config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """The reported time of a phase in seconds, single runs if the program reports them, and details for the row."""

    latency_s: float
    samples_s: Sequence[float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class ExternalEngine(Estimator):
    """Runs an external program on this machine's GPUs for every point."""

    source: ClassVar[Source] = "measured"
    code: ClassVar[Sequence[str]] = ("external",)
    decided_by_source: ClassVar[bool] = False
    """False: the installed program can change without a change of this source."""
    ignored_settings: ClassVar[Collection[str]] = ("run_timeout_s", "nvidia_smi")
    timed_by: ClassVar[str]
    keys_read: ClassVar[Collection[str]] = ()
    """Keys beyond those of every engine that the program runs."""

    def __init__(self, *, run_timeout_s: float, nvidia_smi: str) -> None:
        self.run_timeout_s = run_timeout_s
        self.nvidia_smi = nvidia_smi

    @abstractmethod
    def check_supported(self, point: Point) -> None:
        """Raise Unsupported if the program cannot run the point, or is not installed."""

    @abstractmethod
    def command(self, point: Point, folder: Path) -> Sequence[str]:
        """Write the program's input files into ``folder``; returns its command line."""

    @abstractmethod
    def read(self, point: Point, folder: Path, output: str) -> Timed:
        """The time in the program's output or files; raises ProgramFailed if there is none."""

    def program_facts(self) -> Mapping[str, Any]:
        """What identifies the program without running it: its version, or a digest of its binary."""
        return versions_of(self.libraries)

    def program_id(self, point: Point) -> str:
        """A digest of the command line, the files that it reads and :meth:`program_facts`.

        Raises:
            ShardbenchError: the program cannot run the point, or is not installed.
        """
        point.check()
        self.check_runtime(point)
        self.check_supported(point)
        with ScratchFolder() as folder:
            return self._program_id(self.command(point, folder), folder)

    def _program_id(self, words: Sequence[str], folder: Path) -> str:
        line = [word.replace(str(folder), "FOLDER") for word in words]
        files = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}
        return digest(line, files, self.program_facts())

    def estimate(self, points: Sequence[Point]) -> list[Estimate]:
        """One estimate per point, one after the other."""
        return [self._estimate(point) for point in points]

    def _estimate(self, point: Point) -> Estimate:
        try:
            point.check()
            self.check_runtime(point)
            _check_first_token(point)
            check_extensions(point, self.name, read=self.keys_read)
            self.check_supported(point)
            return self._run(point)
        except ShardbenchError as error:
            return Estimate(status=_status(error), error=str(error))

    def _run(self, point: Point) -> Estimate:
        names = device_names(self.nvidia_smi)
        check_present(point.chip, names, power_limits(self.nvidia_smi))
        with ScratchFolder() as folder:
            words = self.command(point, folder)
            program_id = self._program_id(words, folder)
            program = ExternalProgram(words, folder, self.run_timeout_s)
            with traced_energy(point.num_chips) as energy:
                output = program.run()
            timed = self.read(point, folder, output)
        resolved = {
            "runtime": self.runtime,
            "tensor_parallel": point.tensor_degree,
            "pipeline_parallel": point.pipeline_degree,
            "first_token": "prefill",
        }
        timed_s = sum(timed.samples_s) if timed.samples_s else timed.latency_s
        watts = None if energy is None else energy.watts(timed_s)
        details = {"timed_by": self.timed_by, "command": program.line, **timed.details}
        if energy is not None and watts is not None:
            details["power_stretch_s"] = energy.stretch_s(timed_s)
        return Estimate(
            latency_s=timed.latency_s,
            samples_s=timed.samples_s,
            system=self.name,
            mean_power_w=watts,
            energy_source=None if energy is None else energy.source,
            facts=Facts(
                resolved={key: value for key, value in resolved.items() if getattr(point, key) in (None, "auto")},
                program_id=program_id,
                device_kind=names[0],
                details=details,
            ),
        )


class LatencyBenchmark(ExternalEngine):
    """A runtime's own latency benchmark of ``model_path``, which does the ``warmup_runs`` and the timed ``runs``."""

    def __init__(
        self,
        *,
        program: str,
        model_path: str | None,
        arguments: Sequence[str],
        warmup_runs: int,
        runs: int,
        run_timeout_s: float,
        nvidia_smi: str,
        **_settings: Any,
    ) -> None:
        """Keys of the engine's file in ``conf/engine``; other settings are for the harness."""
        super().__init__(run_timeout_s=run_timeout_s, nvidia_smi=nvidia_smi)
        self.program = program
        self.model_path = model_path
        self.arguments = list(arguments)
        self.warmup_runs = warmup_runs
        self.runs = runs


def _check_first_token(point: Point) -> None:
    """Raise Unsupported for ``first_token=decode``: these runtimes sample the first token from the prefill's logits."""
    if point.first_token == "decode":
        raise Unsupported(
            f"first_token=decode: engine={point.engine} samples the first token from the prefill's logits; "
            "use first_token=prefill"
        )


def check_generate(point: Point) -> None:
    """Raise Unsupported for a phase that the program does not time separately."""
    if point.phase != "generate":
        raise Unsupported(
            f"phase={point.phase}: engine={point.engine} times prefill and decode together; use phase=generate"
        )


def check_one_dtype(point: Point) -> None:
    """Raise Unsupported unless weights, activations and cache have one floating-point dtype."""
    check_one_weight_format(point)
    dtypes = {point.weight_dtype, point.act_dtype, point.kv_dtype}
    if len(dtypes) > 1 or point.weight_dtype not in ACTIVATION_DTYPES:
        raise Unsupported(
            f"weight_dtype={point.weight_dtype}: engine={point.engine} needs one dtype for weights, activations and "
            f"KV cache; use one of {', '.join(ACTIVATION_DTYPES)} for all"
        )


def _status(error: ShardbenchError) -> Status:
    """The row's status for an error."""
    if isinstance(error, OutOfMemory):
        return "oom"
    if isinstance(error, TimedOut):
        return "timeout"
    return "failed" if isinstance(error, ProgramFailed) else "unsupported"

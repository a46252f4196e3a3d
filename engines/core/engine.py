"""The protocol between engines and the harness.

Two kinds answer a point. An :class:`Estimator` (published, analytic, compiled) states times; a :class:`Runner` (jax,
torch) prepares a :class:`Program` that the harness times, so that every measured engine is timed in the same way.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from engines.core.errors import ShardbenchError, Unsupported
from engines.core.point import Point
from engines.core.row import Source, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an engine knows of a point besides its time. Bytes are one chip's, seconds are of the whole phase.

    ``resolved`` holds the keys of the point that the engine chose or changed (``{"ffn_layout": "ws_2d"}``); its names
    are those of a row. ``peak_flops_per_s`` and ``hbm_bytes_per_s`` stand in for a datasheet that is not there; the
    measured matmul and copy rates of this process are reported in addition, for any chip. ``tokens_per_turn`` is that
    of speculative decoding, ``mean_layers`` the layers that a generated token passed before it left. ``details`` is the
    engine's own, stored with the row and interpreted by no other. ``program_id`` is :meth:`Engine.program_id` of what
    answered.
    """

    program_id: str | None = None
    resolved: Mapping[str, Any] = field(default_factory=dict)
    processed_tokens: int | None = None
    cached_tokens: int | None = None
    compute_s: float | None = None
    memory_s: float | None = None
    communication_s: float | None = None
    overlapped_s: float | None = None
    overhead_s: float | None = None
    peak_hbm_bytes: float | None = None
    weights_bytes: float | None = None
    kv_cache_bytes: float | None = None
    activations_bytes: float | None = None
    tokens_per_turn: float | None = None
    mean_layers: float | None = None
    peak_flops_per_s: float | None = None
    hbm_bytes_per_s: float | None = None
    peak_source: str | None = None
    measured_matmul_flops_per_s: float | None = None
    measured_copy_bytes_per_s: float | None = None
    device_kind: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimator's answer. ``status`` other than ok comes with a sentence in ``error``.

    ``latency_s`` is the phase's total, ``ttft_s`` its time to the first token where it has a prefill, ``step_time_s``
    the mean decode step. ``latency_low_s`` and ``latency_high_s`` are the 80% interval of a prediction: what is
    measured lies below the one in 10% of cases, and above the other in 10%. ``system``, ``reference`` and ``mfu`` are
    for what somebody published. ``samples_s`` are the times of single runs, where another program timed them and
    ``latency_s`` is their median. ``mean_power_w`` is that of all chips in that time, where it was measured here, and
    ``energy_source`` by what.
    """

    status: Status = "ok"
    error: str | None = None
    latency_s: float | None = None
    latency_low_s: float | None = None
    latency_high_s: float | None = None
    ttft_s: float | None = None
    step_time_s: float | None = None
    system: str | None = None
    reference: str | None = None
    published_mfu: float | None = None
    samples_s: Sequence[float] | None = None
    mean_power_w: float | None = None
    energy_source: str | None = None
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True, slots=True)
class Stage:
    """One timed part of a program: ``run`` returns when its result is ready on every device."""

    name: str
    run: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The program's output against the engine's reference, in this process.

    ``max_relative_error`` is max|output − reference| / max|reference| over the logits; ``kl_divergence`` is the mean
    of KL(reference ‖ output) over positions, in nats. Those that begin with ``bf16`` are the same against weights in
    bfloat16: the error of quantization, None for unquantized programs. Those that begin with ``quality`` compare an
    output that is meant to differ, of a model that was made smaller or left early, with that of the whole model, or its
    teacher: fields of a row.
    """

    ok: bool
    max_relative_error: float
    tolerance: float
    against: str
    kl_divergence: float | None = None
    bf16_max_relative_error: float | None = None
    bf16_kl_divergence: float | None = None
    quality_kl: float | None = None
    quality_agreement: float | None = None
    quality_perplexity: float | None = None


@dataclass(frozen=True, slots=True)
class JobProcess:
    """Which process of a job this is, of how many. Process 0 measures the time and writes rows."""

    index: int
    count: int


class Team(Protocol):
    """The processes of a job, joined. All of them make the same calls in the same order."""

    process: JobProcess

    def exchange(self, value: Any) -> list[Any]:
        """Every process's value, in order of process; returns once all have called it. Raises where one is lost."""
        ...

    def leave(self) -> None:
        """Wait for all, and leave."""
        ...


class Program(Protocol):
    """A point that is ready to run: compiled, weights loaded, inputs on the devices.

    The stages run in order and make one sample. They are ``prefill`` and/or ``decode``, and can be repeated any number
    of times.
    """

    stages: Sequence[Stage]
    compile_s: float

    def verify(self) -> Verification:
        """Run once more and compare with the reference."""
        ...

    def facts(self) -> Facts:
        """What is known of the program now that it is loaded."""
        ...

    def close(self) -> None:
        """Free the devices' memory."""
        ...


class Engine(ABC):
    """What every engine says of itself. Its ``__init__`` takes the keys of its file in ``conf/engine``.

    Attributes:
        name: as in ``conf/engine``.
        source: the kind of evidence of its answers.
        code: the packages under ``engines`` whose source answers, beside ``core``.
        libraries: the distributions whose versions decide its answers.
        decided_by_source: whether what runs is the same as long as the source, the libraries and the compiler flags
            are. A stored row is then reused without asking for :meth:`program_id`.
        options: settings that change its answers, where they are not the defaults.
        ignored_settings: keys of its file whose value a stored row need not share to be reused, because they change no
            answer, or ``options`` or :meth:`program_id` holds them. All others are compared.
        runtime: the runtime that ``runtime=auto`` stands for; None where the engine has no one runtime.
        answers_any_runtime: whether a point may ask for another.
        settings_type: the dataclass of its settings, where ``__init__`` doesn't name them one by one.
    """

    name: ClassVar[str]
    source: ClassVar[Source]
    code: ClassVar[Sequence[str]]
    libraries: ClassVar[Sequence[str]] = ()
    decided_by_source: ClassVar[bool] = True
    ignored_settings: ClassVar[Collection[str]] = ()
    options: Mapping[str, Any] = MappingProxyType({})
    runtime: ClassVar[str | None] = None
    answers_any_runtime: ClassVar[bool] = False
    settings_type: ClassVar[type | None] = None

    @abstractmethod
    def program_id(self, point: Point) -> str:
        """A digest of what would answer the point now: equal to ``Facts.program_id`` of that answer.

        It holds no source, so that a change of code that runs the same program keeps it. Called in the process that
        answers, and cheap beside an answer.

        Raises:
            ShardbenchError: the point is refused, or its program cannot be made here.
        """

    def program_ids(self, point: Point, answers: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """:meth:`program_id` that each stored answer would have now, by its details; None where they cannot tell.

        For an engine of which a change concerns only some answers, and an answer tells which. By default all are alike.

        Raises:
            ShardbenchError: as :meth:`program_id`.
        """
        now = self.program_id(point)
        return [now for _ in answers]

    def shares_programs(self, point: Point) -> Point:
        """What is equal of points that run some of the same compiled programs, as far as can be told without compiling.

        The harness answers them one after the other in one process, which then compiles once what they share. By
        default a point shares nothing with others.
        """
        return point

    def check_runtime(self, point: Point) -> None:
        """Check that the engine answers for the runtime that a point asks for.

        Raises:
            Unsupported: it runs another.
        """
        asked = point.runtime
        if asked is None or self.answers_any_runtime or asked.name == self.runtime:
            return
        own = "states no runtime" if self.runtime is None else f"is runtime={self.runtime}"
        raise Unsupported(
            f"runtime={asked.name}: engine={self.name} {own}; use runtime=auto, or engine=analytic to predict "
            f"{asked.name}"
        )

    def environment(self, points: Sequence[Point]) -> dict[str, str]:
        """Environment of the process that will answer ``points``, set before its libraries are imported."""
        del points
        return {}

    def process(self) -> JobProcess | None:
        """Which process of a job of several this is; None where it is alone.

        Asked before the engine's libraries are imported.

        Raises:
            ShardbenchError: the settings name no such process.
        """
        return None

    def join(self) -> Team:
        """Meet the other processes: called once in the process that runs the points, if :meth:`process` gave one."""
        raise ShardbenchError(f"engine={self.name}: does not run in several processes; start one")


class Estimator(Engine):
    """An engine that states times: it answers without the harness timing anything."""

    @abstractmethod
    def estimate(self, points: Sequence[Point]) -> Sequence[Estimate]:
        """One answer a point, in order; never raises for a point, only for itself."""


class Runner(Engine):
    """An engine that runs the model, timed by the harness."""

    @abstractmethod
    def prepare(self, point: Point) -> Program:
        """Compile and load.

        Raises:
            Unsupported: this engine, or these devices, cannot run the point.
            OutOfMemory: it does not fit.
        """

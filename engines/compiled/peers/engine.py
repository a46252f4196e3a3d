"""Engines that compile a peer's own program in the peer's Python, and time it as our own programs are timed."""

import json
import shutil
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from engines.compiled.compile.cache import Cache, CompiledProgram, default_folder
from engines.compiled.compile.compiler import out_of_memory_sentence
from engines.compiled.compile.environment import compiling_environment
from engines.compiled.cost.select import cost_model_of
from engines.compiled.cost.version import FIRST_VERSION, by_version, timing_model, version_of
from engines.compiled.peers.line import Depth, PeerPhase, at_all_layers
from engines.compiled.peers.told import estimate_of
from engines.compiled.target.select import target_of
from engines.compiled.target.tpu import TpuTarget
from engines.compiled.timed import timed
from engines.core.digest import digest
from engines.core.engine import Estimate, Estimator
from engines.core.errors import InvalidRequest, OutOfMemory, ShardbenchError, TimedOut, Unsupported
from engines.core.extension import check_extensions
from engines.core.point import Point
from engines.core.row import Source, Status
from engines.host.program import ExternalProgram, ProgramFailed
from engines.host.python import python_of, script_words
from engines.host.scratch import ScratchFolder

SCRIPTS: Final = Path(__file__).parent / "scripts"
PHASES: Final = {"prefill": ("prefill",), "decode": ("decode",), "generate": ("prefill", "decode")}
OWN: Final = ("ffn_layout", "attn_sharding", "collectives", "tensor_parallel", "pipeline_parallel")
"""Keys of our own program that a peer has not."""
ASK_VERSIONS: Final = (
    "import json, sys; from importlib.metadata import PackageNotFoundError, version\n"
    "def of(name):\n"
    "    try: return version(name)\n"
    "    except PackageNotFoundError: return None\n"
    "found = {'python': '.'.join(map(str, sys.version_info[:3]))}\n"
    "print(json.dumps({**found, **{each: of(each) for each in sys.argv[1:]}}))"
)


class PeerEngine(Estimator):
    """Compiles what a peer runs, for slices that are not there. Its layers are unrolled: see :mod:`.line`."""

    source: ClassVar[Source] = "compiled"
    code: ClassVar[Sequence[str]] = ("compiled",)
    decided_by_source: ClassVar[bool] = False
    """False: the peer can change without a change of this source."""
    ignored_settings: ClassVar[Collection[str]] = ("cache_dir", "run_timeout_s", "python", "folder")
    script: ClassVar[Path]
    packages: ClassVar[Sequence[str]]
    """Whose versions decide what is compiled, in the peer's Python."""

    def __init__(
        self,
        *,
        python: str | None,
        depths: Sequence[int],
        cache_dir: str | None,
        compiler_options: Mapping[str, Any] | None,
        run_timeout_s: float,
        **_settings: Any,
    ) -> None:
        """``python`` null is the Python of this process. ``depths`` are the layers of the two programs. Other settings
        are the harness's.

        Raises:
            InvalidRequest: ``depths`` are no two integers in order.
        """
        if len(depths) != 2 or any(type(each) is not int for each in depths) or not 1 <= depths[0] < depths[1]:
            raise InvalidRequest("engine.depths", list(depths), "must be two integers ≥ 1 in order", "use [4,8]")
        self.python = python_of(python)
        self.depths = tuple(depths)
        self.compiler_options = dict(compiler_options or {})
        self.run_timeout_s = run_timeout_s
        folder = default_folder() if cache_dir is None else cache_dir
        self.cache = Cache(folder or None)
        self._versions: dict[str, str | None] | None = None

    @abstractmethod
    def asked(self, point: Point) -> dict[str, Any]:
        """What the script is told besides what every script is.

        Raises:
            Unsupported: the peer does not run the point.
            InvalidRequest: a setting is missing or wrong.
        """

    def environment(self, points: Sequence[Point]) -> dict[str, str]:
        """Environment of the process that compiles, which the peer's inherits: nothing is looked for, logs are quiet.

        Raises:
            InvalidRequest: ``XLA_FLAGS`` holds no flags and names no file of flags.
        """
        del points
        return compiling_environment()

    def program_id(self, point: Point) -> str:
        """A digest of what the peer is asked, of the peer and its compiler, and of what times it. Compiles nothing.

        So it is the id of programs that no later version of the timing model times otherwise than the first.

        Raises:
            ShardbenchError: the peer does not run the point, or its Python lacks it.
        """
        return self._program_id(point, FIRST_VERSION)

    def program_ids(self, point: Point, answers: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """The same of the instructions that each stored answer tells."""
        return by_version(answers, partial(self._program_id, point))

    def _program_id(self, point: Point, timing_version: int) -> str:
        keys = [self._key(self._question(point, phase), depth) for phase in PHASES[point.phase] for depth in (0, 1)]
        return digest(keys, timing_version, cost_model_of(point.slice()))

    def estimate(self, points: Sequence[Point]) -> list[Estimate]:
        """One answer a point, in order; each may take the peer's compiler a while."""
        return [self._answer(point) for point in points]

    def _answer(self, point: Point) -> Estimate:
        try:
            return self._estimate(point)
        except ShardbenchError as error:
            return Estimate(status=_status(error), error=str(error))

    def _estimate(self, point: Point) -> Estimate:
        phases = [self._phase(point, name) for name in PHASES[point.phase]]
        details = {"peer": {"name": self.name, "source_digest": self.peer_id(), "options": dict(self.options)}}
        instructions = {each for phase in phases for depth in phase.depths for each in depth.program.instructions}
        program_id = self._program_id(point, version_of(instructions))
        return estimate_of(point, phases, program_id, self.versions(), {**details, **timing_model(instructions)})

    def versions(self) -> dict[str, str]:
        """Of the packages in the peer's Python.

        Raises:
            Unsupported: there is no such Python, or it lacks one of them.
        """
        if self._versions is None:
            if shutil.which(self.python) is None:
                raise Unsupported(f"engine.python={self.python}: is no program here; give the Python of {self.name}")
            words = script_words(self.python, "-c", ASK_VERSIONS, *self.packages)
            with ScratchFolder() as folder:
                self._versions = json.loads(ExternalProgram(words, folder, self.run_timeout_s).run().splitlines()[-1])
        missing = [name for name, found in self._versions.items() if found is None]
        if missing:
            raise Unsupported(
                f"engine.python={self.python}: lacks {', '.join(missing)}; give a Python that has {self.name}"
            )
        return {name: found for name, found in self._versions.items() if found is not None}

    def _question(self, point: Point, phase: str) -> dict[str, Any]:
        """What the script reads.

        Raises:
            Unsupported: the point is not one of the peer's, or not one of a TPU slice.
        """
        point.check()
        check_extensions(point, self.name)
        if point.chip.kind != "tpu":
            raise Unsupported(f"hw={point.chip.name}: engine={self.name} is compiled for TPUs; use one of them")
        for key, value in (("partitioner", "manual"), *((name, "auto") for name in OWN)):
            if getattr(point, key) not in (None, value):
                raise Unsupported(
                    f"{key}={getattr(point, key)}: engine={self.name} partitions its program itself; leave {key} out"
                )
        target = target_of(point.slice())
        assert isinstance(target, TpuTarget)
        layers = point.model.num_layers
        names = ("d_model", "d_ff", "num_heads", "num_kv_heads", "head_dim", "vocab_size", "rotary_base")
        return {
            "target": {**asdict(target), "devices": point.num_chips * target.cores},
            "phase": phase,
            "depths": [layers] if layers <= self.depths[1] else list(self.depths),
            "model": {name: getattr(point.model, name) for name in names},
            "batch_size": point.batch_size,
            "input_len": point.input_len,
            "cache_len": point.input_len + point.output_len,
            "weight_dtype": point.weight_dtype,
            "kv_dtype": point.kv_dtype,
            "compiler_options": self.compiler_options,
            **self.asked(point),
        }

    def _key(self, question: Mapping[str, Any], depth: int) -> str:
        """The key in the cache of compiled programs: all that decides the program of a depth."""
        content = {key: value for key, value in question.items() if key not in ("depths", "folder")}
        layers = question["depths"][min(depth, len(question["depths"]) - 1)]
        scripts = [path.read_text(encoding="utf-8") for path in (SCRIPTS / "absent.py", self.script)]
        return digest(self.name, layers, content, self.peer_id(), self.versions(), scripts)

    def peer_id(self) -> str | None:
        """What tells one state of the peer from another, besides the versions of its packages."""
        return None

    def _phase(self, point: Point, phase: str) -> PeerPhase:
        question = self._question(point, phase)
        keys = [self._key(question, depth) for depth in range(len(question["depths"]))]
        programs = [found for key in keys if (found := self.cache.get(key)) is not None]
        if len(programs) < len(keys):
            programs = self._compiled(question, keys)
        slice_, cores = point.slice(), question["target"]["cores"]
        depths = []
        for layers, program in zip(question["depths"], programs, strict=True):
            if program.out_of_memory is not None:
                raise OutOfMemory(f"{phase} of {self.name}, {layers} layers: {program.out_of_memory}")
            places = tuple(program.facts["places"])
            cost = cost_model_of(slice_, () if places == tuple(range(len(places))) else places)
            depths.append(Depth(layers, timed(phase, program, cost)))
        whole = at_all_layers(phase, depths, point.model.num_layers)
        limit = point.chip.require("hbm_bytes", point.chip.hbm_bytes) / cores
        if whole.peak_bytes > limit:
            raise OutOfMemory(
                f"{phase} of {self.name}: needs {whole.peak_bytes / 2**30:.2f} of {limit / 2**30:.2f} GiB a device"
                + (f", on the line through {question['depths']} layers" if len(question["depths"]) > 1 else "")
            )
        return whole

    def _compiled(self, question: Mapping[str, Any], keys: Sequence[str]) -> list[CompiledProgram]:
        """What the peer's Python compiles, stored under ``keys``.

        Raises:
            Unsupported: the peer has no program for it. ProgramFailed: it fails; quotes its last words.
        """
        with ScratchFolder() as folder:
            (folder / "question.json").write_text(json.dumps(question), encoding="utf-8")
            words = script_words(self.python, str(self.script), "question.json", str(folder))
            ExternalProgram(words, folder, self.run_timeout_s).run()
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            if "refused" in result:
                raise Unsupported(result["refused"])
            if "failed" in result:
                raise ProgramFailed(f"engine={self.name}: its own program fails: {result['failed']}")
            texts = [(folder / f"{each['layers']}.hlo").read_text(encoding="utf-8") for each in result["programs"]]
        found = list[CompiledProgram]()
        for key, each, text in zip(keys, result["programs"], texts, strict=True):
            message = each["out_of_memory"]
            program = CompiledProgram(
                text=text,
                memory=each["memory"],
                compile_s=each["compile_s"],
                out_of_memory=None if message is None else out_of_memory_sentence(message),
                facts={"places": each["places"], "held": each["held"]},
            )
            self.cache.put(key, program)
            found.append(program)
        return found


def _status(error: ShardbenchError) -> Status:
    """The row's status for an error."""
    if isinstance(error, OutOfMemory):
        return "oom"
    if isinstance(error, TimedOut):
        return "timeout"
    return "unsupported" if isinstance(error, (Unsupported, InvalidRequest)) else "failed"

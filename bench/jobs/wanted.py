"""What a ``shardbench run`` needs of a cluster: how many hosts with which chips, and the command of each."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.sweep.composer import Composer
from bench.sweep.engine_settings import factory_of
from bench.sweep.expand import EngineJob, without_repeats
from bench.sweep.overrides import in_grammar
from bench.sweep.requests import requests_of
from engines.core.chip import Chip, Cloud
from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.core.slice import MeshShape, slice_of

OBJECT_STORES: Final = ("s3://", "gs://")
TEAM: Final = {"jax": "engine.coordinator=auto"}
"""Engine → the word that makes the processes of its hosts one job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A command on a cluster.

    ``teams`` work side by side and share the points of one store; each has ``hosts`` hosts, on which the same command
    starts, with ``host_chips`` chips each: 0 where nothing is measured on chips. ``chip`` and ``mesh_shape`` are those
    of the slice. ``torchrun`` says that PyTorch's ranks of all hosts are started by torchrun.
    """

    words: tuple[str, ...]
    results_dir: str
    teams: int
    hosts: int = 1
    host_chips: int = 0
    chip: Chip | None = None
    mesh_shape: MeshShape | None = None
    torchrun: bool = False

    @property
    def command(self) -> list[str]:
        """The command of every host."""
        return ["shardbench", "run", *self.words]

    @property
    def line(self) -> str:
        """The command as a line of shell."""
        return shlex.join(self.command)

    def cloud(self, system: str) -> tuple[Cloud, str]:
        """The chip at a cloud, and its name in the system ``gke``, ``xpk`` or ``skypilot``.

        Raises:
            InvalidRequest: nothing is measured on a chip, or it has no name there.
        """
        if self.chip is None:
            raise InvalidRequest("run", self.line, "measures nothing on a TPU or GPU", "use kubernetes or slurm")
        cloud = self.chip.cloud
        name: str | None = None if cloud is None else getattr(cloud, system)
        if cloud is None or name is None:
            remedy = f"add cloud.{system} to conf/hw/{self.chip.name}.yaml"
            raise InvalidRequest("hw", self.chip.name, f"has no name in {system}", remedy)
        return cloud, name

    @property
    def num_chips(self) -> int:
        """Chips of one team."""
        return self.hosts * self.host_chips

    @property
    def topology(self) -> str:
        """The slice as a cloud writes it: ``4x4``, ``2x2x4``; axes of one chip come last, as in ``2x2x1``."""
        assert self.chip is not None
        assert self.mesh_shape is not None
        axes = sorted(self.mesh_shape, key=lambda size: (size == 1, size))
        return "x".join(str(size) for size in axes[: self.chip.torus_dims])


def wanted(run: str, workers: int) -> Wanted:
    """What the words of a ``shardbench run`` need, asked of ``workers`` teams that share the points.

    Raises:
        ShardbenchError: the words are no valid request, or their points do not run on one slice.
    """
    words = _words(run)
    composer = Composer()
    with composer.ready():
        requests, _ = without_repeats(requests_of(composer, in_grammar(words, multirun=False)))
    results_dir = requests[0].options.results_dir
    shared = [] if requests[0].options.other_hosts else ["other_hosts=true"]
    common: dict[str, Any] = {"results_dir": results_dir, "teams": workers}
    measured = [job for request in requests for job in request.jobs if _on_chips(job)]
    if not measured:
        return Wanted(words=(*words, *shared), **common)
    chips = {point.chip.name: point.chip for job in measured for point in job.points}
    if len(chips) > 1:
        raise InvalidRequest("hw", ", ".join(chips), "are several chips", "write one file for each")
    (chip,) = chips.values()
    points = [point for job in measured for point in job.points]
    engines = {job.engine for job in measured}
    mesh = _mesh(chip, points) if chip.kind == "tpu" else None
    count = math.prod(mesh) if mesh is not None else max(point.num_chips for point in points)
    host_chips = min(count, chip.cloud.host_chips if chip.cloud is not None else chip.node_size)
    hosts = math.ceil(count / host_chips)
    team: list[str] = []
    if hosts > 1:
        team = _team(engines, words, hosts)
    torchrun = hosts > 1 and engines == {"torch"}
    return Wanted(
        words=(*words, *shared, *team),
        hosts=hosts,
        host_chips=host_chips,
        chip=chip,
        mesh_shape=mesh,
        torchrun=torchrun,
        **common,
    )


def _words(run: str) -> list[str]:
    try:
        words = shlex.split(run)
    except ValueError as error:
        raise InvalidRequest("run", run, f"cannot be read ({error})", "quote it as in a shell") from None
    words = words[2:] if words[:2] == ["shardbench", "run"] else words
    flags = [word for word in words if word.startswith("-")]
    if flags:
        raise InvalidRequest("run", flags[0], "is a flag", "write the sweep with lists: key=[a,b]")
    return words


def _on_chips(job: EngineJob) -> bool:
    """Whether an engine measures on accelerators of its host."""
    source = getattr(factory_of(job.engine_config.get("_target_")), "source", None)
    return source == "measured" and any(point.chip.kind != "cpu" for point in job.points)


def _mesh(chip: Chip, points: Sequence[Point]) -> MeshShape:
    """The slice of all points of a TPU."""
    meshes = {tuple(sorted(slice_of(chip, point.num_chips, point.mesh_shape).mesh_shape)) for point in points}
    if len(meshes) > 1:
        several = ", ".join(str(list(mesh)) for mesh in sorted(meshes))
        raise InvalidRequest("num_chips", several, "are several slices", "write one file for each")
    (mesh,) = meshes
    return (mesh[0], mesh[1], mesh[2])


def _team(engines: set[str], words: Sequence[str], hosts: int) -> list[str]:
    """The words that the processes of several hosts need to find each other."""
    others = engines - {*TEAM, "torch"}
    if others or len(engines) > 1:
        remedy = "use one host's chips, or engine=jax or engine=torch alone"
        raise InvalidRequest("engine", ", ".join(sorted(others or engines)), f"does not span {hosts} hosts", remedy)
    (engine,) = engines
    word = TEAM.get(engine)
    given = any(each.startswith("engine.coordinator=") for each in words)
    return [] if word is None or given else [word]

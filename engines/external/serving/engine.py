"""The engine that has a client put a server under load."""

import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from engines.core.digest import digest
from engines.core.engine import Facts
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.extension import check_extensions
from engines.core.load_test import ClientResult, LoadTester
from engines.core.point import Point
from engines.core.serve_checks import OF_A_LOAD
from engines.core.versions import versions_of
from engines.external.engine import MODEL_KEYS
from engines.external.serving.aiperf_client import AiperfClient
from engines.external.serving.asking import chosen_name, version_of, wait_until_ready
from engines.external.serving.loadgen_client import LoadgenClient
from engines.external.serving.settings import ClientRun, ServingSettings
from engines.external.serving.vllm_client import VllmClient
from engines.host.background import BackgroundProgram
from engines.host.energy_trace import traced_energy
from engines.host.nvidia import check_present, device_names, power_limits
from engines.host.program import ExternalProgram
from engines.host.scratch import ScratchFolder

PORT: Final = "{port}"
READ: Final = (*MODEL_KEYS, *OF_A_LOAD, *("expert_parallel", "data_parallel", "attn_sharding", "routing_skew"))
"""Keys that describe the server, or what is sent to it."""


class Client(Protocol):
    """A client program: how it is started, which of an importer's formats it writes, and what it left."""

    program: ClassVar[str]
    timed_by: ClassVar[str]
    file_format: ClassVar[str]
    library: ClassVar[str]

    def command(self, program: str, run: ClientRun) -> list[str]:
        """The command line; writes what it reads into ``run.folder``."""
        ...

    def result(self, run: ClientRun, output: str) -> ClientResult:
        """What it left; raises ProgramFailed if that is nothing."""
        ...


CLIENTS: Final[Mapping[str, type[Client]]] = {"vllm": VllmClient, "aiperf": AiperfClient, "loadgen": LoadgenClient}


class ServingEngine(LoadTester):
    """Sends requests of ``input_len`` and ``output_len`` tokens to a server, by a client with its own timers."""

    name: ClassVar[str] = "serving"
    code: ClassVar[Sequence[str]] = ("external",)
    decided_by_source: ClassVar[bool] = False
    """False: the server and the client can change without a change of this source."""
    answers_any_runtime: ClassVar[bool] = True
    """What the server runs is the user's to say."""
    settings_type: ClassVar[type | None] = ServingSettings
    ignored_settings: ClassVar[Collection[str]] = ("run_timeout_s", "start_timeout_s", "nvidia_smi")

    def __init__(self, **settings: Any) -> None:
        """Keys of :class:`ServingSettings`; others are the harness's.

        Raises:
            InvalidRequest: one makes no sense.
        """
        names = {each.name for each in fields(ServingSettings)}
        self.settings = ServingSettings(**{name: value for name, value in settings.items() if name in names})
        if self.settings.client not in CLIENTS:
            raise InvalidRequest("engine.client", self.settings.client, "is not known", f"use {', '.join(CLIENTS)}")
        self.options = self.settings.options()
        self.client: Client = CLIENTS[self.settings.client]()

    def program_id(self, point: Point) -> str:
        """A digest of the client's and the server's command lines, and of what a running server says of itself.

        Raises:
            ShardbenchError: the point is refused, or no server answers.
        """
        self._check(point)
        url = self.settings.url
        model = self.settings.served_model or "" if url is None else chosen_name(url, self.settings.served_model)
        server = self._server_words(point) if url is None else [url, version_of(url) or ""]
        with ScratchFolder() as folder:
            return self._program_id(point, folder, server, model)

    def _program_id(self, point: Point, folder: Path, server: Sequence[str], model: str) -> str:
        run = self._run(point, "URL", model, None, 1, folder)
        line = [word.replace(str(folder), "FOLDER") for word in self.client.command(self._program, run)]
        asked = [getattr(point, key) for key in OF_A_LOAD]
        return digest(line, list(server), asked, versions_of((self.client.library,)))

    def open(self, point: Point) -> "ServerUnderLoad":
        """Find the server at ``url``, or start it here and wait until it answers.

        Raises:
            Unsupported: the client cannot do what the point asks, the server does not have the model, or no program to
                start is given.
            ProgramFailed: no server answers, or the one that was started ended.
            TimedOut: the one that was started does not answer in time.
        """
        self._check(point)
        return ServerUnderLoad(self, point)

    @property
    def _program(self) -> str:
        return self.settings.program or self.client.program

    def _run(
        self, point: Point, url: str, model: str, requests_per_s: float | None, requests: int, folder: Path
    ) -> ClientRun:
        return ClientRun(
            point=point,
            url=url,
            model=model,
            requests_per_s=requests_per_s,
            requests=requests,
            folder=folder,
            settings=self.settings,
        )

    def _check(self, point: Point) -> None:
        point.check()
        self.check_runtime(point)
        check_extensions(point, self.name, read=READ)
        if self.settings.url is None:
            self._server_words(point)
        if self.settings.client == "loadgen" and point.output_len < 2:
            raise Unsupported(
                f"output_len={point.output_len}: LoadGen divides by the tokens after the first; use 2 or more"
            )
        if self.settings.client == "loadgen" and self.settings.arrivals != "poisson":
            raise Unsupported(
                f"engine.arrivals={self.settings.arrivals}: LoadGen sends by a Poisson process; use poisson"
            )

    def _server_words(self, point: Point) -> list[str]:
        """The command line of a server that is started here, with :data:`PORT` for its port."""
        settings = self.settings
        if settings.server is not None:
            if not settings.server or not any(PORT in word for word in settings.server):
                raise InvalidRequest(
                    "engine.server",
                    list(settings.server),
                    f"names no {PORT}",
                    f"put {PORT} where the server takes its port",
                )
            return list(settings.server)
        if settings.model_path is None:
            raise Unsupported(
                "engine.url=null: no server is named, and no engine.model_path for vllm serve to load; "
                "give engine.url, engine.model_path or engine.server"
            )
        options = {
            "--host": "127.0.0.1",
            "--port": PORT,
            "--tensor-parallel-size": point.tensor_degree,
            "--pipeline-parallel-size": point.pipeline_degree,
            "--dtype": point.act_dtype,
            "--max-model-len": point.input_len + point.output_len,
        }
        words = [str(word) for option in options.items() for word in option]
        # Prompts repeat where there are more requests than prompts; a cache would answer them.
        return ["vllm", "serve", settings.model_path, *words, "--no-enable-prefix-caching", *settings.server_arguments]


class ServerUnderLoad:
    """A server that answers and its client, until :meth:`close`."""

    def __init__(self, engine: ServingEngine, point: Point) -> None:
        """As :meth:`ServingEngine.open`."""
        self.engine, self.point, self.rules = engine, point, engine.settings.rules
        self._scratch = ScratchFolder()
        self._started: BackgroundProgram | None = None
        self._runs = 0
        self._line = ""
        self._devices: list[str] = []
        try:
            self._url = self._find()
            self._model = chosen_name(self._url, engine.settings.served_model)
        except BaseException:
            self.close()
            raise

    def _find(self) -> str:
        settings = self.engine.settings
        if settings.url is not None:
            self._server = [settings.url, version_of(settings.url) or ""]
            return settings.url.rstrip("/")
        self._server = self.engine._server_words(self.point)
        if self.point.chip.kind == "gpu":
            self._devices = device_names(settings.nvidia_smi)
            check_present(self.point.chip, self._devices, power_limits(settings.nvidia_smi))
        port = str(_free_port())
        folder = self._scratch.path / "server"
        folder.mkdir()
        started = self._started = BackgroundProgram([word.replace(PORT, port) for word in self._server], folder)
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(
            url,
            settings.start_timeout_s,
            lambda: f"{started.name} ended before it answered{started.tail()}" if started.has_ended else None,
        )
        return url

    @property
    def system(self) -> str | None:
        """As :attr:`engines.core.load_test.Server.system`."""
        ours = self._started is not None and self.engine.settings.server is None
        return self.engine.settings.system or ("vLLM" if ours else None)

    def load(self, requests_per_s: float | None, requests: int) -> ClientResult:
        """As :meth:`engines.core.load_test.Server.load`."""
        engine = self.engine
        folder = self._scratch.path / f"run-{self._runs}"
        self._runs += 1
        folder.mkdir()
        run = engine._run(self.point, self._url, self._model, requests_per_s, requests, folder)
        program = ExternalProgram(engine.client.command(engine._program, run), folder, engine.settings.run_timeout_s)
        self._line = program.line.replace(str(folder), "FOLDER")
        # Which GPUs a server at a URL has, or on which machine, nobody here knows.
        here = self._started is not None and self.point.chip.kind == "gpu"
        with traced_energy(self.point.num_chips) if here else nullcontext() as energy:
            output = program.run()
        found = engine.client.result(run, output)
        return found if energy is None else replace(found, watts=energy.watts, energy_source=energy.source)

    def facts(self) -> Facts:
        """As :meth:`engines.core.load_test.Server.facts`."""
        started = self._started
        details = {
            "timed_by": self.engine.client.timed_by,
            "command": self._line,
            "server_command": started.line if started is not None else None,
            "server_version": version_of(self._url),
            "server_model": self._model,
            # Under their own names, so that the command which asks again has them.
            **self.engine.settings.stated(),
        }
        resolved: dict[str, Any] = {}
        if started is not None:
            degrees = {"tensor_parallel": self.point.tensor_degree, "pipeline_parallel": self.point.pipeline_degree}
            ours = self.engine.settings.server is None
            resolved = {**degrees, "runtime": "vllm"} if ours else {}
            asked = {**{key: getattr(self.point, key) for key in degrees}, "runtime": self.point.runtime}
            resolved = {key: value for key, value in resolved.items() if asked[key] is None}
        return Facts(
            resolved=resolved,
            program_id=self.engine._program_id(self.point, self._folder_for_id(), self._server, self._name_for_id()),
            device_kind=self._devices[0] if self._devices else None,
            details={name: value for name, value in details.items() if value is not None},
        )

    def _folder_for_id(self) -> Path:
        folder = self._scratch.path / "id"
        folder.mkdir(exist_ok=True)
        return folder

    def _name_for_id(self) -> str:
        """Of a server that is not there yet, the name is not known when its program is identified."""
        return self._model if self._started is None else self.engine.settings.served_model or ""

    def close(self) -> None:
        """End the server if it was started here, and remove all files."""
        if self._started is not None:
            self._started.close()
        self._scratch.close()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

"""The W&B library in this process: begins and ends its runs, and never holds up a sweep for longer than a limit.

The library works through a service, a process of its own. That may die, hang or find the disk full: then it is ended,
and :class:`WandbSession` says so once.
"""

import atexit
import glob
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from bench.run.wandb_log import is_whole
from bench.run.wandb_mode import unreachable
from engines.core.errors import ShardbenchError
from engines.host.resident import children
from engines.host.scratch import ScratchFolder

REACH_TIMEOUT_S: Final = 5.0
"""How long the server may take to answer anything before rows are logged offline."""
INIT_TIMEOUT_S: Final = 30.0
"""How long it may take to begin a run; the library's default is 90."""
FINISH_TIMEOUT_S: Final = 60.0
"""How long the upload of one run may hold up the next point; the library's default is for ever."""
ACTION_TIMEOUT_S: Final = 180.0
"""How long all that one row needs may take, before the library is given up."""
WRITE_TIMEOUT_S: Final = 5.0
"""How long an offline run may take to be on disk once it has ended."""
POLL_S: Final = 0.01
END_TIMEOUT_S: Final = 10.0
"""How long the service may take to end before it is killed."""
OFFLINE: Final = "offline-run-"
"""How the folder of an offline run begins, as the library names it."""
SERVICE: Final = "wandb-core"
DATA_DIR: Final = "WANDB_DATA_DIR"
"""The library's variable for the folder of files that wait to be uploaded with an artifact."""
LONGEST_PLACE: Final = 60
"""Bytes of a path that leave room for the name of the service's socket below it: 108 in all."""
T = TypeVar("T")


class WandbSession:
    """Runs of one command. ``mode`` is online or offline, and becomes offline if the server does not answer."""

    def __init__(self, config: Mapping[str, Any], mode: str) -> None:
        self.mode = mode
        self._config = config
        self._results_dir = Path(config["results_dir"])
        self._started = False
        self._failed = False
        self._run_id = ""

    @property
    def folder(self) -> Path:
        """The folder of the runs, with those that are not uploaded."""
        return self._results_dir / "wandb"

    def attempt(self, action: Callable[[], T]) -> T | None:
        """Do something with the library; None, and a line on stderr, if it fails or takes too long.

        A failure online is followed by offline runs, a failure offline by nothing more; half of a run is removed.
        """
        if self._failed:
            return None
        try:
            with in_places_of_ours(self.folder):
                return within(ACTION_TIMEOUT_S, action)
        except (Exception, SystemExit) as error:  # logging must never stop the sweep, and the library may exit
            if self.mode == "online":
                self._go_offline(reason(error))
            else:
                self._failed = True
                print(
                    f"wandb: {reason(error)}; logging is off for the rest of this command, the store has every row; "
                    "shardbench wandb sync logs those rows later",
                    file=sys.stderr,
                )
                end_service()
                self._remove_halves()
        return None

    def begin(self, **settings: Any) -> Any:
        """Begin a run; offline from now on if the server does not let it begin."""
        settings = {"id": secrets.token_hex(4), **settings}
        self._run_id = settings["id"]
        if not self._started:
            self._started = True
            self._results_dir.mkdir(parents=True, exist_ok=True)
            if self.mode == "online":
                import wandb

                problem = unreachable(wandb.setup().settings.base_url, REACH_TIMEOUT_S)
                if problem is not None:
                    self._go_offline(problem)
        if self.mode == "online":
            try:
                return self._init("online", settings)
            except Exception as error:  # of any kind: no network, no such project, an expired key
                self._go_offline(reason(error))
        return self._init("offline", settings)

    def finish(self, run: Any, exit_code: int = 0) -> None:
        """End a run.

        Raises:
            ShardbenchError: it is offline and not on disk in full.
        """
        run.finish(exit_code=exit_code)
        folder = Path(run.dir).parent
        if folder.name.startswith(OFFLINE) and not _becomes_whole(log_of(folder)):
            raise ShardbenchError(f"{folder}: could not be written in full (is the disk full?)")

    def _remove_halves(self) -> None:
        """Remove what was written of the last run, unless it is whole: the store still has its row."""
        for folder in self.folder.glob(f"{OFFLINE}*-{glob.escape(self._run_id)}"):
            if not is_whole(log_of(folder)):
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Wait until every run is written or sent, and print the folder of offline runs."""
        if self._started and not self._failed:
            self.attempt(_wait)
        if self.mode == "offline" and self.folder.is_dir() and sys.stderr.isatty():
            print(f"wandb: offline runs in {self.folder}; upload them with wandb sync", file=sys.stderr)

    def _go_offline(self, problem: str) -> None:
        self.mode = "offline"
        print(
            f"wandb: {problem}; logging offline from here on; upload it later with wandb sync {self.folder}/"
            "offline-run-*; shardbench wandb sync logs rows that are missing",
            file=sys.stderr,
        )
        end_service()  # it holds the id of the run that did not begin, and waits for the server

    def _init(self, mode: Literal["online", "offline"], settings: Mapping[str, Any]) -> Any:
        import wandb

        limits: dict[str, Any] = {
            "init_timeout": INIT_TIMEOUT_S,
            "finish_timeout": FINISH_TIMEOUT_S,
            "finish_timeout_raises": True,
        }
        known = {name: value for name, value in limits.items() if name in wandb.Settings.model_fields}
        return wandb.init(
            project=self._config["project"],
            entity=self._config["entity"],
            dir=str(self._results_dir),
            mode=mode,
            reinit="create_new",
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True, **known),
            **settings,
        )


def within(limit_s: float, action: Callable[[], T]) -> T:
    """What an action returns or raises, in a thread of its own, which is left behind if it takes too long.

    Raises:
        TimeoutError: it took longer than ``limit_s``.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True, name="wandb")
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"did not answer within {limit_s:g} s")
    return results[0]


def end_service() -> None:
    """End the library's service and forget its runs, whatever state it is in; silent."""
    with suppress(Exception, SystemExit):
        within(END_TIMEOUT_S, _wait)
    for number in children(SERVICE):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def log_of(folder: Path) -> Path:
    """The transaction log in the folder of a run; of one that does not exist yet, a path that does not either."""
    return next(iter(sorted(folder.glob("run-*.wandb"))), folder / "run.wandb")


def _becomes_whole(log: Path) -> bool:
    """Whether a run's log is on disk to its end soon: the service writes the last of it after it has said so."""
    deadline = time.monotonic() + WRITE_TIMEOUT_S
    while not is_whole(log):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def reason(error: BaseException) -> str:
    """The first line of an error, or its kind if it says nothing."""
    return (str(error).splitlines() or [f"the library stopped with {type(error).__name__}"])[0]


@cache
def _scratch() -> ScratchFolder:
    """The temporary folder of the library in this process, which goes with it, however that ends."""
    scratch = ScratchFolder()
    atexit.register(scratch.close)
    return scratch


@contextmanager
def in_places_of_ours(folder: Path) -> Iterator[None]:
    """The library and its service make temporary folders all the time: here they lie in :func:`_scratch`.

    What waits to be uploaded lies beside the runs, and not in the home folder, unless the user's variable says where.
    """
    place = _scratch().path
    places = {"TMPDIR": str(place)} if len(str(place)) < LONGEST_PLACE else {}
    if DATA_DIR not in os.environ:
        places[DATA_DIR] = str(folder.absolute() / "data")
    former, variables = tempfile.tempdir, {name: os.environ.get(name) for name in places}
    tempfile.tempdir = str(place)
    os.environ.update(places)
    try:
        yield
    finally:
        tempfile.tempdir = former
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _wait() -> None:
    import wandb

    wandb.teardown()

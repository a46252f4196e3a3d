"""Calls Hydra as a program of its own would be: its flags, and the launchers and sweepers that it has plugins for."""

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from bench.sweep.compose_errors import PACKAGES, explained
from bench.sweep.composer import without_hydra
from bench.sweep.search_path import use_user_folders
from engines.core.conf import conf_dir
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.host.scratch import ScratchFolder

HYDRAS: Final = "hydra._internal.core_plugins."
"""Begins the class of Hydra's own launcher and sweeper, which run one job after the other in this process."""
LIBRARIES: Final = {"ray": "ray", "submitit_local": "submitit", "submitit_slurm": "submitit", "optuna": "optuna"}
"""Our own launchers and sweepers → the library beneath, which is an extra of the same name."""


def flags_of(words: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags, by its own parser.

    Raises:
        ShardbenchError: a flag is unknown, lacks its value, or is refused here.
        SystemExit: ``--version`` printed the version.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            flags = get_args_parser().parse_args(list(words))
    except SystemExit as error:
        if not error.code:
            raise
        problem = said.getvalue().strip().splitlines()[-1].rpartition("error: ")[2]
        raise ShardbenchError(f"{problem}; shardbench run --hydra-help lists the flags") from None
    if flags.config_path is not None and not flags.config_path.startswith("pkg://"):
        # Hydra takes it as relative to the module of its caller, which no user sees.
        flags.config_path = os.path.abspath(Path(flags.config_path).expanduser())
    for word in flags.overrides:
        raise InvalidRequest(
            "argument", word, "must have the form key=value", "write key=value, and lists as key=[1,2]"
        )
    if flags.experimental_rerun is not None:
        raise InvalidRequest(
            "--experimental-rerun", flags.experimental_rerun, "is not supported", "run the same command line again"
        )
    shown = [name for name, on in (("--cfg", flags.cfg), ("--info", flags.info)) if on is not None]
    several = [*shown, *(["-m"] if flags.multirun else []), *(["--run"] if flags.run else [])]
    if len(several) > 1:
        remedy = f"leave out {several[-1]}" + (", and give each key one value" if flags.multirun else "")
        raise ShardbenchError(f"{several[0]} with {several[-1]}: only one of them can be used; {remedy}")
    if flags.resolve and flags.cfg is None and not flags.help:
        raise ShardbenchError("--resolve: is for --cfg and --help; add --cfg job")
    return flags


def show(flags: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Print what ``--help``, ``--cfg``, ``--info`` and the like ask for; returns 0.

    Raises:
        ShardbenchError: the config cannot be composed.
    """

    def none(_config: DictConfig) -> None:
        raise AssertionError("a flag that shows something runs nothing")

    call(none, flags, overrides)
    return 0


def call(task: Callable[[DictConfig], Any], flags: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Let Hydra compose the config of each job, and call ``task`` with it where Hydra's launcher runs it.

    Raises:
        ShardbenchError: Hydra cannot compose a config.
        Exception: what a launcher or sweeper raises, such as for a job that died.
    """
    use_user_folders()
    words = _words_of(flags)
    with _arguments(words, overrides), without_hydra(), explained(overrides):
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
        except SystemExit as error:
            if error.code:
                raise ShardbenchError(f"Hydra ended with exit code {error.code}; check {' '.join(words)}") from None


def has_basic_sweeper(config: DictConfig) -> bool:
    """Whether Hydra's own sweeper makes the jobs: every combination, known before the first runs."""
    return _target(config, "sweeper").startswith(HYDRAS)


def runs_here(config: DictConfig) -> bool:
    """Whether Hydra's own sweeper and launcher are chosen."""
    return has_basic_sweeper(config) and _target(config, "launcher").startswith(HYDRAS)


def _target(config: DictConfig, kind: str) -> str:
    with explained(()):
        chosen = config.hydra[kind]
    return "" if chosen is None else str(chosen.get("_target_", ""))


def check_plugins(config: DictConfig) -> None:
    """Check that the launcher and the sweeper of a composed config can be loaded.

    Raises:
        InvalidRequest: a plugin is there that doesn't work with this version of Hydra, or its package isn't.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plugins = Plugins.instance()
    for kind in ("launcher", "sweeper"):
        chosen = str(config.hydra.runtime.choices.get(f"hydra/{kind}"))
        if _target(config, kind) not in plugins.class_name_to_class:
            package = PACKAGES[f"hydra/{kind}"].get(chosen, "its package")
            raise InvalidRequest(
                f"hydra/{kind}",
                chosen,
                f"cannot be loaded by Hydra {hydra.__version__} here",
                f"install a version of {package} that works with it, and all that it needs; or use basic",
            )
        library = LIBRARIES.get(chosen)
        if library is not None and find_spec(library) is None:
            raise InvalidRequest(f"hydra/{kind}", chosen, f"needs {library}", f"pip install 'shardbench[{library}]'")


def _words_of(flags: argparse.Namespace) -> list[str]:
    """Flags as words again, each in the one spelling that stands alone."""
    words = []
    for name, value in vars(flags).items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif isinstance(value, str):
            words.append(f"--{name.replace('_', '-')}={value}")
    return words


@contextmanager
def _arguments(words: Sequence[str], overrides: Sequence[str]) -> Iterator[None]:
    """Set sys.argv, which Hydra reads, and make Hydra raise errors instead of printing them."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    with ScratchFolder() as scratch:
        # Hydra writes a multirun's config to a folder, which is not needed: every row holds its whole point.
        own = any(word.startswith("hydra.sweep.dir=") for word in overrides)
        sweep_dir = [] if own else [f"hydra.sweep.dir={Path(scratch).as_posix()}"]
        sys.argv = ["shardbench run", *words, *overrides, *sweep_dir]
        os.environ["HYDRA_FULL_ERROR"] = "1"
        try:
            yield
        finally:
            sys.argv = argv
            if full_error is None:
                del os.environ["HYDRA_FULL_ERROR"]
            else:
                os.environ["HYDRA_FULL_ERROR"] = full_error

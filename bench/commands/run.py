"""``shardbench run``: Hydra composes the config, the runner answers it."""

import difflib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import hydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench import runner
from bench.conf import conf_dir, unknown_choice
from bench.config import GROUPS, VALUES, request_from
from bench.launcher import register
from bench.runner import Tally
from engines.errors import AskedWrongly, ShardbenchError

GROUP_LIST: Final = re.compile(rf"^({'|'.join(GROUPS)})=\[(.*)\]$")


def run(words: Sequence[str]) -> int:
    """Run with Hydra's command line; returns the exit code.

    Raises:
        ShardbenchError: anything that the user can put right, in one sentence.
    """
    plain, grid = _group_lists(words)
    task = _Task(grid, _given(plain))
    register()
    with _arguments(plain):
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
        except (HydraException, OmegaConfBaseException) as error:
            raise _translated(error, plain) from error
    if task.error is not None:
        raise task.error
    return 0 if task.tally is None else task.tally.exit_code


class _Task:
    """What Hydra calls: once with the config, or (through our launcher) once with all configs of a multirun.

    An error is kept rather than raised, since Hydra prints its own lines about one that passes through it.
    """

    __module__ = "bench.commands.run"
    __name__ = "run"

    def __init__(self, grid: Mapping[str, Sequence[str]], given: Mapping[str, str]) -> None:
        self.tally: Tally | None = None
        self.error: ShardbenchError | None = None
        self._grid = grid
        self._given = given

    def __call__(self, config: DictConfig) -> None:
        self.run_all([config])

    def run_all(self, configs: Sequence[DictConfig]) -> None:
        """Evaluate every config; the requests are all read before the first is run."""
        try:
            requests = []
            for config in configs:
                content = OmegaConf.to_container(config, resolve=True)
                assert isinstance(content, dict)
                given = {key: content[key] for key in self._given if key in VALUES or key in GROUPS}
                requests.append(request_from({str(key): value for key, value in content.items()}, self._grid, given))
            self.tally = runner.run(requests)
        except ShardbenchError as error:
            self.error = error


def _group_lists(words: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Take ``model=[a,b]`` apart: Hydra would merge the two configs of a group into one."""
    plain: list[str] = []
    grid: dict[str, list[str]] = {}
    for word in words:
        match = GROUP_LIST.match(word)
        if match is None:
            plain.append(word)
            continue
        group, choices = match[1], [choice.strip().strip("'\"") for choice in match[2].split(",") if choice.strip()]
        if not choices:
            raise AskedWrongly(group, "[]", "is an empty list", "give at least one choice")
        grid[group] = choices
        plain.append(f"{group}={choices[0]}")
    return plain, grid


def _given(words: Sequence[str]) -> dict[str, str]:
    """Keys that the user typed, ``model.num_layers`` as ``model``."""
    pairs = (word.lstrip("+~").partition("=") for word in words if "=" in word and not word.startswith("-"))
    return {name.partition(".")[0]: value for name, _, value in pairs}


@contextmanager
def _arguments(words: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv, and tells of its own errors unless told to raise them."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    with tempfile.TemporaryDirectory(prefix="shardbench-") as scratch:
        # Hydra keeps a multirun's config in a folder of its own; here every row holds its whole point instead.
        own = [] if any(word.startswith("hydra.sweep.dir=") for word in words) else [f"hydra.sweep.dir={scratch}"]
        sys.argv = ["shardbench run", *words, *own]
        os.environ["HYDRA_FULL_ERROR"] = "1"
        try:
            yield
        finally:
            sys.argv = argv
            if full_error is None:
                del os.environ["HYDRA_FULL_ERROR"]
            else:
                os.environ["HYDRA_FULL_ERROR"] = full_error


def _translated(error: Exception, words: Sequence[str]) -> ShardbenchError:
    """Hydra's error as one sentence with the key, the value and the remedy."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group:
            return unknown_choice(group, name)
    text = str(error)
    if isinstance(error, (ConfigCompositionException, OmegaConfBaseException)):
        match = re.search(
            r"Could not (?:override|append to config\. An item is already at|delete from config\.) '?([\w.]+)", text
        )
        if match is not None:
            return _unknown_key(match[1], words)
    if isinstance(error, OverrideParseException):
        return AskedWrongly(
            error.override,
            "",
            "cannot be read",
            "write key=value, with lists as [1,2] and quotes around odd characters",
        )
    return ShardbenchError(text.strip().splitlines()[0])


def _unknown_key(key: str, words: Sequence[str]) -> AskedWrongly:
    value = next((word.partition("=")[2] for word in words if word.lstrip("+~").partition("=")[0] == key), "")
    known = [*VALUES, *GROUPS, "sweep", "sweep_name", "points", "results_dir", "resume", "retry", "print"]
    near = difflib.get_close_matches(key, known, n=1)
    remedy = f"did you mean {near[0]}=" if near else "shardbench run --help shows every key"
    return AskedWrongly(key, value, "is no key of shardbench run", remedy)

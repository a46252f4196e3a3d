"""``shardbench run``: Hydra composes the config, the runner answers it."""

import difflib
import os
import re
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import hydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.run import runner
from bench.sweep.catalog import conf_dir, unknown_choice
from bench.sweep.expand import GROUPS, Request, request_from
from bench.sweep.hw_here import hw_here
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.point import Point

GROUP_LIST: Final = re.compile(rf"^({'|'.join(GROUPS)})=\[(.*)\]$")


def run(words: Sequence[str]) -> int:
    """Run with Hydra's command line; returns the exit code.

    Raises:
        ShardbenchError: anything that the user can put right, in one sentence.
    """
    plain, grid = _for_hydra(words)
    configs: list[DictConfig] = []
    with _arguments(plain):
        try:
            # Hydra only composes: once, or once a job of a multirun. What it composed then runs as a whole, with one
            # progress bar and one exit code, and nothing runs where one job's config is wrong.
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(configs.append)()
        except (HydraException, OmegaConfBaseException) as error:
            raise _translated(error, plain) from error
    if not configs:  # --help, --cfg and the like
        return 0
    given = _given(plain)
    return runner.run([_request(config, grid, given) for config in configs]).exit_code


def _request(config: DictConfig, grid: Mapping[str, Sequence[str]], given: Collection[str]) -> Request:
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    plain = {str(key): value for key, value in content.items()}
    return request_from(plain, grid, [key for key in given if key in (*Point.schema(), *GROUPS)])


def _for_hydra(words: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """What Hydra can read, and ``model=[a,b]`` apart, of which it would merge the configs into one."""
    plain: list[str] = []
    grid: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("sweep="):  # no recipe is part of the config, so Hydra wants it added
            plain.append(f"+{word}")
            continue
        if word == "hw=here":
            plain.append(f"hw={hw_here()}")
            continue
        match = GROUP_LIST.match(word)
        if match is None:
            plain.append(word)
            continue
        group, choices = match[1], [choice.strip().strip("'\"") for choice in match[2].split(",") if choice.strip()]
        if not choices:
            raise InvalidRequest(group, "[]", "is an empty list", "give at least one choice")
        grid[group] = choices
        plain.append(f"{group}={choices[0]}")
    return plain, grid


def _given(words: Sequence[str]) -> set[str]:
    """Keys that the user typed, ``model.num_layers`` as ``model``."""
    names = (word.lstrip("+~").partition("=")[0] for word in words if "=" in word and not word.startswith("-"))
    return {name.partition(".")[0] for name in names}


@contextmanager
def _arguments(words: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv, and tells of its own errors unless told to raise them."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    with tempfile.TemporaryDirectory(prefix="shardbench-") as scratch:
        # Hydra keeps a multirun's config in a folder of its own; here every row holds its whole point instead.
        own = [] if any(word.startswith("hydra.sweep.dir=") for word in words) else [f"hydra.sweep.dir={scratch}"]
        # argparse takes no flag between two overrides, where users put -m or --cfg job.
        overrides = [word for word in words if word.startswith("~") or ("=" in word and not word.startswith("-"))]
        sys.argv = ["shardbench run", *(word for word in words if word not in overrides), *overrides, *own]
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
        return InvalidRequest(
            error.override,
            "",
            "cannot be read",
            "write key=value, with lists as [1,2] and quotes around odd characters",
        )
    return ShardbenchError(text.strip().splitlines()[0])


def _unknown_key(key: str, words: Sequence[str]) -> InvalidRequest:
    value = next((word.partition("=")[2] for word in words if word.lstrip("+~").partition("=")[0] == key), "")
    known = [*Point.schema(), *GROUPS, "sweep", "sweep_name", "points", "results_dir", "resume", "retry", "print"]
    near = [] if "." in key else difflib.get_close_matches(key, known, n=1)
    remedy = f"did you mean {near[0]}=" if near else "shardbench run --cfg job shows every key"
    return InvalidRequest(key, value, "is not a key of shardbench run", remedy)

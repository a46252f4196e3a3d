"""``shardbench run``: Hydra composes the config, the runner evaluates its points."""

import difflib
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import hydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bench.run import runner
from bench.sweep.catalog import conf_dir, invalid_yaml, names, unknown_choice
from bench.sweep.expand import GROUPS, Request, request_from
from bench.sweep.hw_here import hw_here
from bench.sweep.search_path import use_user_folders
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.point import Point
from engines.host.scratch import ScratchFolder

CONFIG_GROUPS: Final = (*GROUPS, "timing", "wandb")
GROUP_LIST: Final = re.compile(rf"^({'|'.join(GROUPS)})=\[(.*)\]$")


def run(words: Sequence[str]) -> int:
    """Run the command line ``words``; returns the exit code.

    Raises:
        ShardbenchError: the request is invalid; one sentence.
    """
    plain, grid = _for_hydra(words)
    configs: list[DictConfig] = []
    use_user_folders()
    with _arguments(plain):
        try:
            # Hydra only composes the configs: one, or one per job of a multirun. All of them then run together, with
            # one progress bar and one exit code, and nothing runs if one config is invalid.
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(configs.append)()
        except (HydraException, OmegaConfBaseException) as error:
            raise _explained(error, plain) from error
        except YAMLError as error:
            raise invalid_yaml(error) from error
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
    """The words for Hydra, and separately lists such as ``model=[a,b]``, whose configs Hydra would merge into one."""
    plain: list[str] = []
    grid: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("sweep="):  # Hydra requires + for a group that is not in the defaults list
            plain.append(f"+{word}")
            continue
        if word == "hw=here":
            plain.append(f"hw={hw_here()}")
            continue
        group, _, choice = word.partition("=")
        if group in CONFIG_GROUPS and choice in ("", "null"):
            raise InvalidRequest(group, choice, "names no choice", f"use one of {', '.join(names(group))}")
        match = GROUP_LIST.match(word)
        if match is None:
            plain.append(word)
            continue
        group, choices = match[1], [choice.strip().strip("'\"") for choice in match[2].split(",") if choice.strip()]
        if not choices:
            raise InvalidRequest(group, "[]", "is an empty list", "use at least one choice")
        grid[group] = choices
        plain.append(f"{group}={choices[0]}")
    return plain, grid


def _given(words: Sequence[str]) -> set[str]:
    """The keys on the command line, ``model.num_layers`` as ``model``."""
    names = (word.lstrip("+~").partition("=")[0] for word in words if "=" in word and not word.startswith("-"))
    return {name.partition(".")[0] for name in names}


@contextmanager
def _arguments(words: Sequence[str]) -> Iterator[None]:
    """Set sys.argv, which Hydra reads, and make Hydra raise errors instead of printing them."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    with ScratchFolder() as scratch:
        # Hydra writes a multirun's config to a folder, which is not needed: every row holds its whole point.
        sweep_dir = [] if any(word.startswith("hydra.sweep.dir=") for word in words) else [f"hydra.sweep.dir={scratch}"]
        # argparse accepts no flag between two overrides, where users may put -m or --cfg job.
        overrides = [word for word in words if word.startswith("~") or ("=" in word and not word.startswith("-"))]
        sys.argv = ["shardbench run", *(word for word in words if word not in overrides), *overrides, *sweep_dir]
        os.environ["HYDRA_FULL_ERROR"] = "1"
        try:
            yield
        finally:
            sys.argv = argv
            if full_error is None:
                del os.environ["HYDRA_FULL_ERROR"]
            else:
                os.environ["HYDRA_FULL_ERROR"] = full_error


def _explained(error: Exception, words: Sequence[str]) -> ShardbenchError:
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
        key, equals, value = error.override.partition("=")
        return InvalidRequest(
            key if equals else "argument",
            value if equals else key,
            "cannot be parsed",
            "use key=value, with lists as [1,2] and quotes around special characters",
        )
    return ShardbenchError(text.strip().splitlines()[0])


def _unknown_key(key: str, words: Sequence[str]) -> InvalidRequest:
    value = next((word.partition("=")[2] for word in words if word.lstrip("+~").partition("=")[0] == key), "")
    known = [*Point.schema(), *GROUPS, "sweep", "sweep_name", "points", "results_dir", "resume", "retry", "print"]
    near = [] if "." in key else difflib.get_close_matches(key, known, n=1)
    remedy = f"did you mean {near[0]}=" if near else "shardbench run --cfg job shows every key"
    return InvalidRequest(key, value, "is not a key of shardbench run", remedy)

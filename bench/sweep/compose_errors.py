"""What Hydra and OmegaConf refuse, as one sentence with the key, the value and the remedy."""

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from bench.sweep.catalog import invalid_yaml, load_group, unknown_choice
from bench.sweep.expand import GROUPS, OPTIONS
from bench.sweep.overrides import CONFIG_GROUPS, name_of, parsed
from engines.core.conf import conf_dir
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.method_keys import MOVED
from engines.core.point import Point

PACKAGES: Final = {
    "hydra/launcher": {
        "joblib": "hydra-joblib-launcher",
        "submitit_local": "hydra-submitit-launcher",
        "submitit_slurm": "hydra-submitit-launcher",
        "ray": "hydra-ray-launcher",
        "ray_aws": "hydra-ray-launcher",
        "rq": "hydra-rq-launcher",
    },
    "hydra/sweeper": {
        "optuna": "hydra-optuna-sweeper",
        "nevergrad": "hydra-nevergrad-sweeper",
        "ax": "hydra-ax-sweeper",
    },
    "hydra/job_logging": {"colorlog": "hydra-colorlog"},
    "hydra/hydra_logging": {"colorlog": "hydra-colorlog"},
}
"""Choice of one of Hydra's groups → the package on PyPI that has it."""
ASIDE: Final = ("sweep", "preset", "timing", "wandb", "price", "points")
"""Words of a command line that are neither a point's keys nor options."""
_ABOUT_A_KEY: Final = re.compile(
    r"Could not (?:override|append to config\. An item is already at|delete from config\.) '?([\w.@/-]+)"
)


@contextmanager
def explained(words: Sequence[str]) -> Iterator[None]:
    """Turn the errors of a composition with these overrides into one sentence.

    Hydra and OmegaConf raise plain errors of Python, too, for configs that they did not expect.

    Raises:
        ShardbenchError: in place of any of them.
    """
    try:
        yield
    except ShardbenchError:
        raise
    except YAMLError as error:
        raise invalid_yaml(error) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise _of_hydra(error, words) from error
    except ValueError as error:
        wrong = [word for word in words if _is_wrong_choice(word)]
        if not wrong:
            raise _unforeseen(error, words) from error
        key, _, value = wrong[0].partition("=")
        raise InvalidRequest(key, value, "is not the name of a choice", f"use a name, as {key}=basic") from error
    except (TypeError, KeyError, AttributeError, AssertionError, RecursionError, OSError) as error:
        raise _unforeseen(error, words) from error


def _is_wrong_choice(word: str) -> bool:
    name = name_of(word)
    if "/" not in name and name not in CONFIG_GROUPS:
        return False
    return "=" in word and not isinstance(parsed(word).value(), (str, ChoiceSweep))


def _unforeseen(error: Exception, words: Sequence[str]) -> ShardbenchError:
    return ShardbenchError(f"the config cannot be composed ({first_line(error)}); check {_said(words)}")


def _of_hydra(error: Exception, words: Sequence[str]) -> ShardbenchError:
    if isinstance(error, MissingConfigException):
        group, _, name = str(error.missing_cfg_file or "").rpartition("/")
        if group in PACKAGES:
            return _not_installed(group, name)
        if group in CONFIG_GROUPS:
            return unknown_choice(group, name)
        if group.partition("/")[0] in CONFIG_GROUPS:  # a choice with a slash in it
            top, _, rest = group.partition("/")
            return unknown_choice(top, f"{rest}/{name}")
        missing = error.missing_cfg_file
        if missing and not group:
            return InvalidRequest(
                "--config-name", missing, "is not a file of the config folders", "use one that exists"
            )
    for each in (error, error.__cause__):
        if isinstance(each, YAMLError):
            return invalid_yaml(each)
    text = str(error)
    about = _ABOUT_A_KEY.search(text)
    if about is not None and "not exist" not in text.partition("\n")[0]:
        return unknown_key(about[1], words)
    if about is not None:
        return InvalidRequest(f"~{about[1]}", "", "deletes a key that is not there", "leave it out")
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    merging = re.search(r"Error merging override (.*)", text)
    if merging is not None or isinstance(cause, (MissingMandatoryValue, InterpolationResolutionError)):
        key = str(getattr(cause, "full_key", "") or "") or name_of(merging[1] if merging else "")
        word = merging[1] if merging else next((each for each in words if name_of(each) == key), "")
        return InvalidRequest(
            key or "config", word.partition("=")[2], first_line(cause), "shardbench run --cfg job shows every key"
        )
    return ShardbenchError(f"{first_line(error)}; check {_said(words)}")


def unknown_key(key: str, words: Sequence[str]) -> InvalidRequest:
    """The error for a key that the config does not have, with the closest one, or that ``~`` has taken from it."""
    if f"~{key}" in words:
        return InvalidRequest(f"~{key}", "", f"deletes a key and {key}= gives it a value", "leave one of them out")
    value = next((word.partition("=")[2] for word in words if name_of(word) == key), "")
    if key in MOVED:
        return InvalidRequest(key, value, "is a key of the point now", MOVED[key])
    known = _keys_of_group(key, words) if "." in key else [*Point.schema(), *GROUPS, *ASIDE, *OPTIONS]
    near = difflib.get_close_matches(key, known, n=1)
    remedy = f"did you mean {near[0]}=" if near else "shardbench run --cfg job shows every key"
    return InvalidRequest(key, value, "is not a key of shardbench run", remedy)


def _keys_of_group(key: str, words: Sequence[str]) -> list[str]:
    """``GROUP.KEY`` for each key of the choice of a nested key's group that ``words`` make, else of the default."""
    group = key.partition(".")[0]
    if group not in CONFIG_GROUPS:
        return []
    content: Any = OmegaConf.load(conf_dir() / "config.yaml")
    choices = {
        name: choice for each in content.defaults if isinstance(each, DictConfig) for name, choice in each.items()
    }
    choices |= {name_of(word): word.partition("=")[2] for word in words}
    first = re.split(r"[\[\],]+", str(choices.get(group)).strip("[]"))[0]
    try:
        return [f"{group}.{each}" for each in load_group(group, first)]
    except ShardbenchError:  # it is wrong itself, which is said where it is read
        return []


def _not_installed(group: str, name: str) -> InvalidRequest:
    package = PACKAGES[group].get(name)
    if package is None:
        known = ", ".join(("basic", *PACKAGES[group]) if "log" not in group else PACKAGES[group])
        return InvalidRequest(group, name, "is not known to Hydra here", f"use one of {known}")
    return InvalidRequest(group, name, "is not installed", f"pip install {package}")


def _said(words: Sequence[str]) -> str:
    return " ".join(words[:6]) + (" …" if len(words) > 6 else "") if words else "the config folder"


def first_line(error: Exception) -> str:
    """The first line of an error's message that says something, else the name of its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0]

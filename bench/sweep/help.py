"""What ``shardbench run --help`` prints: the choices of every group, and every key with its value and meaning."""

import itertools
import math
import string
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from bench.sweep.commented import settings
from bench.sweep.composer import Composer
from engines.core.conf import conf_dir

HYDRAS: Final = ("hydra", "hydra_plugins")
WIDEST: Final = 36
"""A key and its value that are longer have their comment below them."""
WIDTH: Final = 120


def help_of(composer: Composer, config: DictConfig) -> str:
    """The help of a composed ``config``: its own template, the choices of every group, and the keys with comments.

    A group that describes something, such as a chip, is shown by its name alone, and a group of settings, such as an
    engine, key by key. ``config`` is changed: its ``hydra`` node is taken out.
    """
    template = string.Template(config.hydra.help.template)
    repository = composer.loader.repository  # type: ignore[attr-defined]
    options = {group: repository.get_group_options(group, ObjectType.CONFIG) for group in _groups(repository, "")}
    choices = {group: str(config.hydra.runtime.choices.get(group)) for group in options}
    groups = "".join(f"{group}: {', '.join(sorted(names))}\n" for group, names in sorted(options.items()))
    with read_write(config), open_dict(config):
        del config["hydra"]
    content: Any = OmegaConf.to_container(config)
    return template.substitute(APP_CONFIG_GROUPS=groups, CONFIG="\n".join(_keys(content, choices)) + "\n")


def _keys(content: Mapping[str, Any], choices: Mapping[str, str]) -> Iterator[str]:
    """The lines of all keys: chosen groups, the keys of ``conf/config.yaml`` by paragraph, those of no file of ours."""
    described = [name for name in content if name in choices and _describes(content[name])]
    yield from _paragraph([(name, choices[name], f"{name}.KEY=VALUE changes one of its keys") for name in described])
    known = [setting for setting in settings(conf_dir() / "config.yaml") if setting.key in content]
    for section, found in itertools.groupby(known, key=lambda each: each.section):
        yield f"\n# {section}"
        yield from _paragraph([(each.key, content[each.key], each.comment) for each in found])
    for name in (each for each in content if each in choices and each not in described):
        yield f"\n# {name}={choices[name]}"
        comments = _comments(conf_dir() / name / f"{choices[name]}.yaml")
        keys = [key for key in content[name] if key not in ("name", "_target_")]
        yield from _paragraph([(f"{name}.{key}", content[name][key], comments.get(key, "")) for key in keys])
    ours = {*choices, *(setting.key for setting in known)}
    yield from _paragraph([(name, content[name], "") for name in content if name not in ours])


def _describes(node: Any) -> bool:
    """Whether a group's node is a thing with a name (a model, a chip), and no settings of a program."""
    return isinstance(node, Mapping) and "name" in node and "_target_" not in node


def _comments(path: Path) -> dict[str, str]:
    """Key → comment of one of our own files; empty for a user's own, whose folder only Hydra knows."""
    if not path.is_file():
        return {}
    opening = [line.lstrip("# ") for line in itertools.takewhile(lambda x: x.startswith("#"), _lines(path))]
    return {each.key: each.comment.removeprefix(" ".join(opening)).strip() for each in settings(path)}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _paragraph(found: Sequence[tuple[str, Any, str]]) -> Iterator[str]:
    """``key: value  # comment`` for each key, value and comment, the comments wrapped in one column."""
    shown = [
        yaml.safe_dump({key: value}, default_flow_style=True, width=math.inf, sort_keys=False).strip()[1:-1]
        for key, value, _comment in found
    ]
    column = max((len(each) + 2 for each in shown if len(each) + 2 <= WIDEST), default=WIDEST)
    for left, (_key, _value, comment) in zip(shown, found, strict=True):
        below = [f"{'':<{column}}# {line}" for line in textwrap.wrap(comment, WIDTH - column - 2)]
        beside = below and len(left) + 2 <= column
        yield left + below.pop(0)[len(left) :] if beside else left
        yield from below


def _groups(repository: Any, above: str) -> Iterator[str]:
    """The groups of our own and of the user's folders, each under its path."""
    for name in repository.get_group_options(above, ObjectType.GROUP):
        group = f"{above}/{name}" if above else name
        if group in HYDRAS:
            continue
        yield group
        yield from _groups(repository, group)

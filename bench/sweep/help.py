"""What ``shardbench run --help`` prints, as Hydra does it, without its seconds of copying a config for each group."""

import string
from collections.abc import Iterator
from typing import Any

from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from bench.sweep.composer import Composer

HYDRAS = ("hydra", "hydra_plugins")


def help_of(composer: Composer, config: DictConfig) -> str:
    """The help of a composed ``config``: its own template, the choices of every group and the values of all keys.

    ``config`` is changed: its ``hydra`` node is taken out.
    """
    template = string.Template(config.hydra.help.template)
    repository = composer.loader.repository  # type: ignore[attr-defined]
    groups = "".join(
        f"{group}: {', '.join(sorted(repository.get_group_options(group, ObjectType.CONFIG)))}\n"
        for group in sorted(_groups(repository, ""))
    )
    with read_write(config), open_dict(config):
        del config["hydra"]
    return template.substitute(APP_CONFIG_GROUPS=groups, CONFIG=OmegaConf.to_yaml(config))


def _groups(repository: Any, above: str) -> Iterator[str]:
    """The groups of our own and of the user's folders, each under its path."""
    for name in repository.get_group_options(above, ObjectType.GROUP):
        group = f"{above}/{name}" if above else name
        if group in HYDRAS:
            continue
        yield group
        yield from _groups(repository, group)

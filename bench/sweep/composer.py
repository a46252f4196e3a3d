"""Composes configs with Hydra, one an override list, and fast where lists differ in plain values alone."""

import copy
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from bench.sweep.compose_errors import explained
from bench.sweep.overrides import parsed
from bench.sweep.search_path import use_user_folders
from engines.core.conf import conf_dir

ASKS_HYDRA: Final = "${hydra:"
"""An interpolation of the job's number, overrides and the like, which differ from job to job."""


class Composer:
    """Hydra's composition of a primary config with overrides, as :func:`hydra.compose` does it.

    Composing takes Hydra some 50 ms, nearly all of it for the defaults list and for reading files, which depend on
    the chosen groups alone. So each choice of groups is composed once, and all other overrides are applied to a copy of
    it by Hydra's own function, in their order. Where a config asks Hydra itself, all of it is composed anew.
    """

    def __init__(self, config_dir: str | None = None, config_name: str = "config") -> None:
        """``config_dir`` holds the primary config ``config_name``; None is our own ``conf/``."""
        self.config_dir = str(conf_dir()) if config_dir is None else config_dir
        self.config_name = config_name
        self._bases: dict[tuple[str, ...], bytes | None] = {}
        self._is_group: dict[str, bool] = {}
        self._repository: Any = None

    @contextmanager
    def ready(self) -> Iterator["Composer"]:
        """Hydra initialised for this composer; its state before comes back afterwards.

        Raises:
            InvalidRequest: the folder of the primary config does not exist.
        """
        use_user_folders()
        with without_hydra(), self._opened():
            yield self

    def _opened(self) -> Any:
        with explained(()):
            if self.config_dir.startswith("pkg://"):
                return hydra.initialize_config_module(self.config_dir[6:], job_name="run", version_base="1.3")
            folder = os.path.abspath(Path(self.config_dir).expanduser())
            return hydra.initialize_config_dir(folder, job_name="run", version_base="1.3")

    def whole(self, words: Sequence[str], *, multirun: bool = False) -> DictConfig:
        """The config with its ``hydra`` node, by Hydra alone.

        Raises:
            ShardbenchError: Hydra cannot compose it; one sentence.
        """
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        with explained(words):
            return self.loader.load_configuration(self.config_name, list(words), mode)

    def content(self, words: Sequence[str]) -> dict[str, Any]:
        """The plain, resolved values of the config without its ``hydra`` node.

        Raises:
            ShardbenchError: Hydra cannot compose or resolve it; one sentence.
        """
        with explained(words):
            grouped = [word for word in words if self._decides_files(word)]
            base = self._base(tuple(grouped))
            left = [word for word in words if word not in grouped]
            if base is None or any(ASKS_HYDRA in word for word in left):
                return _plain(self.loader.load_configuration(self.config_name, list(words), RunMode.RUN))
            job: DictConfig = pickle.loads(base)
            self._apply(left, job)
            return _resolved(job)

    @property
    def loader(self) -> ConfigLoader:
        """Hydra's loader of configs, while this is :meth:`ready`."""
        return GlobalHydra.instance().config_loader()

    def _base(self, words: tuple[str, ...]) -> bytes | None:
        """The config of the chosen groups without its ``hydra`` node, pickled; None where a value asks Hydra.

        A copy by ``copy.deepcopy`` takes six times as long, more than all else of a job.
        """
        if words not in self._bases:
            config = self.loader.load_configuration(self.config_name, list(words), RunMode.RUN)
            base = _without_hydra(config)
            self._bases[words] = None if ASKS_HYDRA in OmegaConf.to_yaml(base) else pickle.dumps(base)
        return self._bases[words]

    def _decides_files(self, word: str) -> bool:
        """Whether an override chooses a group, or is about Hydra; the defaults list reads no others."""
        override = parsed(word)
        if override.is_hydra_override() or override.package is not None:
            return True
        if isinstance(override.value(), dict):
            return False
        key = override.key_or_group
        if key not in self._is_group:
            self._is_group[key] = bool(self._files().get_group_options(key))
        return self._is_group[key]

    def _files(self) -> Any:
        """Hydra's view of the folders of configs. Its loader reads the primary config for each question about them."""
        if self._repository is None:
            loader: Any = self.loader
            _, self._repository = loader._parse_overrides_and_create_caching_repo(self.config_name, [])
        return self._repository

    def _apply(self, words: Sequence[str], config: DictConfig) -> None:
        loader: Any = self.loader
        loader._apply_overrides_to_config([parsed(word) for word in words], config)


@contextmanager
def without_hydra() -> Iterator[None]:
    """Hydra as if it had never been initialised in this process; its state before comes back afterwards."""
    state = GlobalHydra.instance()
    before, state.hydra = state.hydra, None
    try:
        yield
    finally:
        state.hydra = before


def _without_hydra(config: DictConfig) -> DictConfig:
    with read_write(config), open_dict(config):
        config.pop("hydra", None)
    return config


def _plain(config: DictConfig) -> dict[str, Any]:
    """Resolve while Hydra's own config is set, as it is where Hydra calls a job."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(copy.deepcopy(config))
    try:
        return _resolved(_without_hydra(config))
    finally:
        HydraConfig.instance().cfg = before


def _resolved(config: DictConfig) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in content.items()}

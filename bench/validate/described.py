"""The model and the chip that a row names, changed ones such as ``tiny+num_layers=2`` included."""

from functools import cache
from pathlib import Path

from bench.sweep.catalog import config_dirs, load_customised, model_from
from engines.core.chip import Chip
from engines.core.model import Model


def model_and_chip(model: str, hw: str) -> tuple[Model, Chip]:
    """The descriptions of both names.

    Raises:
        InvalidRequest: a name is not known, or a changed key is not one of its keys.
    """
    return _model(model, config_dirs()), _chip(hw, config_dirs())


@cache
def _model(name: str, folders: tuple[Path, ...]) -> Model:
    del folders  # a part of the cache's key
    return model_from(load_customised("model", name))


@cache
def _chip(name: str, folders: tuple[Path, ...]) -> Chip:
    del folders
    return Chip.from_config(load_customised("hw", name))

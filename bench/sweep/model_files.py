"""Model files that are made of checkpoints: their names, their YAML, and writing them without loss."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bench.rows.atomic import replaced
from bench.sweep.catalog import load_chip, model_from
from engines.core.conf import conf_dir
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.model import Model
from engines.weights.checkpoint.describe import checkpoint_name, describe, first_difference

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
"""Names that are the same as a file's name, in YAML and on the command line."""
WORDS: Final = ("true", "false", "yes", "no", "on", "off", "null", "nan", "inf")
"""YAML reads these as something else than text."""
HW: Final = "tpu-v5p"
SHARE: Final = 0.5
"""Of the chips' memory that weights may take in the command that is shown, so that caches have room."""
WEIGHT_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A checkpoint's model; ``own`` where shardbench has it already. ``notes`` are what the user should know."""

    path: Path
    model: Model
    own: bool
    notes: tuple[str, ...]

    @property
    def smallest_slice(self) -> list[str]:
        """``hw`` and ``num_chips``: the fewest chips, a power of two, that hold the weights with room to spare."""
        memory, chips = load_chip(HW).hbm_bytes or math.inf, 1
        while WEIGHT_BYTES * self.model.params > SHARE * chips * memory:
            chips *= 2
        return [f"hw={HW}", f"num_chips={chips}"]


def named_model(path: Path, name: str | None) -> NamedModel:
    """The model of a checkpoint's folder or ``config.json``, called ``name`` or else as its folder.

    Raises:
        InvalidRequest: it is of no supported model; the name is no file's name, or one of shardbench's own models with
        another architecture.
    """
    called = _usable(checkpoint_name(path)) if name is None else name
    described = describe(path, called, asked="checkpoint")
    if NAME.fullmatch(called) is None or called.lower() in WORDS:
        raise InvalidRequest(
            "name" if name is not None else "checkpoint",
            called if name is not None else path,
            f"{called!r} is not usable as a name" if name is None else "is not usable as a name",
            "give name= letters, digits, '.', '_' and '-', with a letter first",
        )
    notes = []
    if described.unknown:
        notes.append(f"not known, and taken as changing nothing since they are empty: {', '.join(described.unknown)}")
    own = _read(conf_dir() / "model" / f"{called}.yaml")
    if own is None:
        return NamedModel(path, described.model, False, tuple(notes))
    difference = first_difference(own, described.model)
    if difference is not None:
        raise InvalidRequest(
            "name",
            called,
            f"is one of shardbench's own models, with {difference}={getattr(own, difference)} where the checkpoint has "
            f"{getattr(described.model, difference)}",
            f"use another, such as name={called}-mine",
        )
    return NamedModel(path, own, True, tuple(notes))


def check_names(found: Sequence[NamedModel]) -> None:
    """Check that no two models have one name.

    Raises:
        InvalidRequest: two have.
    """
    first: dict[str, NamedModel] = {}
    for each in found:
        # Some file systems take letters of either case as the same.
        other = first.setdefault(each.model.name.lower(), each)
        if other is not each:
            raise InvalidRequest(
                "checkpoint",
                each.path,
                f"has the name of {other.path}, {other.model.name}",
                "give each alone, with name=",
            )


def model_yaml(model: Model) -> str:
    """The content of a model's file."""
    return OmegaConf.to_yaml({key: value for key, value in asdict(model).items() if value is not None})


def write_models(found: Sequence[NamedModel], folder: Path) -> list[Path | None]:
    """Write ``FOLDER/model/NAME.yaml`` for each model that is not one of shardbench's own; the files, in order.

    Raises:
        InvalidRequest: a file is there that holds another model, or cannot be written. Names are checked first, so that
        nothing is written where one is taken.
    """
    paths = [None if each.own else folder / "model" / f"{each.model.name}.yaml" for each in found]
    for each, path in zip(found, paths, strict=True):
        if path is not None:
            _check_free(each.model, path)
    for each, path in zip(found, paths, strict=True):
        if path is not None:
            with replaced(path) as temporary:
                temporary.write_text(model_yaml(each.model), encoding="utf-8")
    return paths


def _check_free(model: Model, path: Path) -> None:
    remedy = "give another name= or delete that file"
    try:
        there = _read(path)
    except ShardbenchError as error:
        raise InvalidRequest("out", path, f"is there already and is no model ({error})", remedy) from None
    if there is None:
        return
    difference = first_difference(there, model)
    if difference is not None:
        values = f"{difference}={getattr(there, difference)} and not {getattr(model, difference)}"
        raise InvalidRequest("out", path, f"is there already and holds another model, with {values}", remedy)


def _read(path: Path) -> Model | None:
    """The model of a file, None where there is no file."""
    if not path.exists():
        return None
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        raise ShardbenchError("it cannot be read as YAML") from None
    if not isinstance(content, dict):
        raise ShardbenchError("it is no YAML mapping")
    return model_from({str(key): value for key, value in content.items()})


def _usable(name: str) -> str:
    """A folder's name with each run of other characters as one ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")

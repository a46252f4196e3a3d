"""From a checkpoint's config to a model, and to the locations of its tensors."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from engines.core.errors import InvalidRequest, shown
from engines.core.model import Model
from engines.weights.checkpoint.architecture import check_architecture
from engines.weights.checkpoint.config import Config, read_config
from engines.weights.checkpoint.families.family import Family
from engines.weights.checkpoint.families.registry import FAMILIES
from engines.weights.checkpoint.files import CONFIG, KEY
from engines.weights.checkpoint.keys import check_rest
from engines.weights.checkpoint.stored_size import stored_params
from engines.weights.checkpoint.tensor_location import TensorLocation
from engines.weights.checkpoint.unreadable import unreadable
from engines.weights.random import tensors

NOT_ARCHITECTURE: Final = frozenset({"name", "source", "published_params", "mfu_params"})
"""Fields of a model that a checkpoint's config does not state."""
TOLERANCE: Final = 1e-3
"""A checkpoint whose files hold another number of parameters, by more than this share, is of another model."""


@dataclass(frozen=True, slots=True)
class Description:
    """A model that a config describes, and which of its keys were not needed for that.

    ``unused`` are keys known to change nothing in this config; ``unknown`` those that shardbench doesn't know and that
    are empty, false or 0.
    """

    model: Model
    unused: frozenset[str]
    unknown: tuple[str, ...]


def describe(path: Path, name: str | None = None, asked: str = KEY) -> Description:
    """What the config of the folder ``path``, or the file ``path``, describes; ``name`` is else taken from the folder.

    The size is what the files in the folder hold, where they are there, else counted from the config.

    Raises:
        InvalidRequest: there is no config; it is not a causal language model of a supported family; a key changes it in
        a way that is not supported, or is unknown; or the files hold another number of parameters.
    """
    config = read_config(path, asked)
    described = _described(config, name)
    return replace(described, model=_sized(config, described.model))


def model_of(path: Path, name: str | None = None) -> Model:
    """The model of :func:`describe` by its config alone, whose size is counted.

    Raises:
        InvalidRequest: as there, but for what the files hold.
    """
    return _described(read_config(path), name).model


def described_by(content: Mapping[str, Any]) -> Model:
    """The model that the ``content`` of a config describes.

    Raises:
        InvalidRequest: as in :func:`describe`.
    """
    return _described(Config(Path(CONFIG), content), None).model


def checkpoint_name(path: Path) -> str:
    """The folder's name; in the cache of huggingface_hub, where that is a revision, the repository's."""
    folder = (path.parent if path.is_file() else path).resolve()
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name


def family_of(config: Config) -> Family:
    """The family of a config, whose architecture is checked.

    Raises:
        InvalidRequest: it is not supported, or is not a causal language model.
    """
    if config.model_type not in FAMILIES:
        raise unreadable(config, tuple(sorted(FAMILIES)))
    family = FAMILIES[config.model_type]
    check_architecture(config, family.architectures, family.own_code)
    return family


def check_matches(model: Model, folder: Path) -> None:
    """Check that ``model`` is what the checkpoint in ``folder`` holds.

    Raises:
        InvalidRequest: the first field that differs, with both values.
    """
    held = model_of(folder)
    field = first_difference(model, held)
    if field is not None:
        asked, found = (_effective(each, field) for each in (model, held))
        raise InvalidRequest(
            f"model.{field}",
            asked,
            f"is {shown(found)} in {CONFIG} of {KEY}={folder}",
            f"run the model that shardbench model checkpoint={folder} prints",
        )


def first_difference(one: Model, other: Model, fields: Collection[str] | None = None) -> str | None:
    """The first field, of all or of ``fields``, in which two architectures differ; None where they are the same."""
    for field in Model.__dataclass_fields__ if fields is None else fields:
        if field not in NOT_ARCHITECTURE and not _same(_effective(one, field), _effective(other, field)):
            return field
    return None


@dataclass(frozen=True, slots=True)
class Located:
    """Where each canonical tensor of a model lies in a checkpoint.

    ``tied_copy`` is where a tied model's output matrix lies once more, if it does: some files hold it twice. ``apart``
    are stored tensors of layers beside the model's own, such as those that predict further tokens.
    """

    tensors: dict[str, TensorLocation]
    tied_copy: TensorLocation | None
    apart: frozenset[str]


def locations_of(model: Model, folder: Path, stored: Collection[str]) -> Located:
    """Where each canonical tensor of ``model`` lies in the checkpoint in ``folder``, whose tensors are ``stored``."""
    family = family_of(read_config(folder))
    found = family.locations(model)
    if family.inner is not None and not any(name.startswith(f"{family.inner}.") for name in stored):
        found = {key: replace(each, name=each.name.removeprefix(f"{family.inner}.")) for key, each in found.items()}
    head = found["lm_head"]
    return Located(
        {name: found[name] for name in tensors(model)},
        head if model.tied_embedding and head.name in stored else None,
        frozenset(name for name in stored if family.is_apart(model, name)),
    )


def _described(config: Config, name: str | None) -> Description:
    folder = checkpoint_name(config.path)
    fields = family_of(config).fields(config)
    unknown = tuple(check_rest(config))
    try:
        model = Model(
            name=name or folder,
            source=f"{CONFIG} of {folder}; parameters counted from it",
            published_params=1.0,
            mfu_params=1.0,
            **fields,
        )
    except InvalidRequest as error:
        field = error.key.removeprefix("model.")
        raise config.refused(f"{CONFIG} describes a model of {field}={error.value}, which {error.problem}") from None
    counted = replace(model, published_params=float(model.params), mfu_params=float(active_params(model)))
    return Description(counted, frozenset(config.unused), unknown)


def _sized(config: Config, counted: Model) -> Model:
    """``counted`` with the size that the files state, or as it is where there are none."""
    family = family_of(config)
    located = family.locations(counted)
    copies = {}
    if counted.tied_embedding:
        table = located["lm_head"]
        copies[table.name] = math.prod(table.shape)
    stored = stored_params(config, copies, lambda name: family.is_apart(counted, name))
    if stored is None:
        return counted
    size, stated = stored
    held = {name: math.prod(located[key].shape) for key in tensors(counted) for name in located[key].names}
    size -= sum(held.values()) - counted.params  # rows of tables that no token reads
    if abs(size - counted.params) > TOLERANCE * counted.params:
        raise config.refused(
            f"{CONFIG} describes {counted.params:,} parameters, but {stated} say {size:,}",
            f"download the folder again, or give its {CONFIG} alone to take the size from that",
        )
    source = f"{CONFIG} of {checkpoint_name(config.path)}; parameters by {stated}"
    used = counted.mfu_params / counted.published_params
    return replace(counted, published_params=float(size), mfu_params=float(round(size * used)), source=source)


def active_params(model: Model) -> int:
    """Parameters that one token meets: all but those of the experts that it is not sent to."""
    if model.experts is None:
        return model.params
    unused = (model.experts.count - model.experts.per_token) * model.experts.expert.params
    return model.params - unused * sum(kind.has_experts for kind in model.layer_kinds)


def _effective(model: Model, field: str) -> Any:
    """A field's value, with what a missing one stands for."""
    if field == "expert_d_ff" and model.num_experts is not None:
        return model.expert_d_ff or model.d_ff
    return model.rotated_dim if field == "rotary_dim" else getattr(model, field)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same: numbers but for the digits that a model file leaves out."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)

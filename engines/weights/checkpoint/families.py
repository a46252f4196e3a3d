"""Supported checkpoint architectures: from a config to a model, and to the locations of its tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from engines.core.errors import InvalidRequest
from engines.core.model import Model
from engines.weights.checkpoint import falcon, gptj, llama, neox
from engines.weights.checkpoint.config import Config, read_config
from engines.weights.checkpoint.files import CONFIG, KEY
from engines.weights.checkpoint.tensor_location import TensorLocation
from engines.weights.random import tensors


@dataclass(frozen=True, slots=True)
class Family:
    """How to read the checkpoints of one architecture."""

    fields: Callable[[Config], dict[str, Any]]
    locations: Callable[[Model], dict[str, TensorLocation]]


FAMILIES: Final[Mapping[str, Family]] = {
    "falcon": Family(falcon.fields, falcon.locations),
    "gpt_neox": Family(neox.fields, neox.locations),
    "gptj": Family(gptj.fields, gptj.locations),
    "llama": Family(llama.fields, llama.locations),
}
"""``model_type`` of a config → its family."""

NOT_ARCHITECTURE: Final = frozenset({"name", "source", "published_params", "mfu_params"})
"""Fields of a model that a checkpoint's config does not state."""


def model_of(folder: Path, name: str | None = None) -> Model:
    """The model that the checkpoint's config describes, called ``name`` or as the folder; its size is counted.

    Raises:
        InvalidRequest: the folder holds no config, or one of an architecture that is not supported.
    """
    config = read_config(folder)
    called = name or folder.resolve().name
    counted = Model(
        name=called,
        source=f"{CONFIG} of {folder.resolve().name}; parameters counted from it",
        published_params=1.0,
        mfu_params=1.0,
        **family_of(config).fields(config),
    )
    return replace(counted, published_params=float(counted.params), mfu_params=float(counted.params))


def family_of(config: Config) -> Family:
    """The family of a config.

    Raises:
        InvalidRequest: its architecture is not supported.
    """
    if config.model_type not in FAMILIES:
        raise InvalidRequest(
            KEY,
            config.folder,
            f"is of model_type={config.model_type}, which is not supported",
            f"use a checkpoint of {', '.join(sorted(FAMILIES))}",
        )
    return FAMILIES[config.model_type]


def check_matches(model: Model, folder: Path) -> None:
    """Check that ``model`` is what the checkpoint in ``folder`` holds.

    Raises:
        InvalidRequest: the first field that differs, with both values.
    """
    held = model_of(folder)
    for field in Model.__dataclass_fields__:
        asked, found = (_effective(each, field) for each in (model, held))
        if field not in NOT_ARCHITECTURE and asked != found:
            raise InvalidRequest(
                f"model.{field}",
                asked,
                f"is {found} in {CONFIG} of {KEY}={folder}",
                f"run the model that shardbench model checkpoint={folder} prints",
            )


def locations_of(model: Model, folder: Path) -> tuple[dict[str, TensorLocation], TensorLocation | None]:
    """Where each canonical tensor of ``model`` lies in the checkpoint in ``folder``.

    The second is where a tied model's output matrix lies once more, if it does: some files hold it twice.
    """
    found = family_of(read_config(folder)).locations(model)
    return {name: found[name] for name in tensors(model)}, found["lm_head"] if model.tied_embedding else None


def _effective(model: Model, field: str) -> Any:
    """A field's value, with what a missing one stands for."""
    return model.rotated_dim if field == "rotary_dim" else getattr(model, field)

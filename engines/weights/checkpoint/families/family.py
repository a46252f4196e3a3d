"""What must be known to read the checkpoints of one family."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.tensor_location import TensorLocation


def _nothing(model: Model, name: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Family:
    """How to read the checkpoints of one ``model_type``.

    ``architectures`` are the classes in a config that mean the causal language model; ``fields`` gives the fields of
    :class:`Model` that a config sets; ``locations`` where each canonical tensor lies in the files, those included that
    the model does not have. ``inner`` is the module that old files leave out of the names of their tensors.
    ``own_code`` are the modules that released checkpoints name in ``auto_map``, from before the family was part of
    transformers. ``is_apart`` says of a stored tensor's name whether it is of layers beside the model's own.
    """

    architectures: tuple[str, ...]
    fields: Callable[[Config], dict[str, Any]]
    locations: Callable[[Model], dict[str, TensorLocation]]
    inner: str | None = None
    own_code: tuple[str, ...] = ()
    is_apart: Callable[[Model, str], bool] = _nothing

"""A ``config.json`` that other programs load with random weights, for models of a family that they know.

Each family writes what it can of a model. What it wrote is read back as any checkpoint's config is, and only a config
that describes the same model is given: no list of features says which family a model is of.
"""

from engines.core.errors import InvalidRequest, Unsupported, shown
from engines.core.model import Model
from engines.external.hf_families import FAMILIES
from engines.external.hf_rotary import Content
from engines.weights.checkpoint.describe import described_by, first_difference


def hf_config(model: Model, dtype: str, engine: str) -> Content:
    """The content of a checkpoint's ``config.json``.

    Raises:
        Unsupported: the model is of no family that is written; names what the closest one lacks.
    """
    closest: tuple[int, str] | None = None
    for (family, architecture), write in FAMILIES.items():
        content = {"architectures": [architecture], "model_type": family, "torch_dtype": dtype, **write(model)}
        try:
            read = described_by(content)
        except InvalidRequest:
            continue
        different = differences(model, read)
        if not different:
            return content
        if closest is None or len(different) < closest[0]:
            name = different[0]
            closest = len(different), f"{name}={shown(getattr(model, name))} is none of {family}'s"
    why = "no family is like it" if closest is None else closest[1]
    raise Unsupported(
        f"model={model.name}: engine={engine} generates random weights for families of transformers alone, and {why}; "
        "use engine.model_path=FOLDER with a checkpoint"
    )


def differences(one: Model, other: Model) -> list[str]:
    """Every field in which two architectures differ."""
    return [name for name in Model.__dataclass_fields__ if first_difference(one, other, [name]) is not None]

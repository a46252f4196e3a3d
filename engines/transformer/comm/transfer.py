"""One collective of a layer, and what it sends of a weight."""

from dataclasses import dataclass

from engines.core.dtypes import BYTES_PER_ELEMENT, GROUP_SCALE_BYTES, MX_BLOCK
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan


@dataclass(frozen=True, slots=True, order=True)
class Transfer:
    """One collective of a layer: its kind as in HLO, its mesh axes (sorted), its payload in bytes, what it is for."""

    kind: str
    axes: str
    payload_bytes: float
    what: str


def transfer(kind: str, axes: Axes, payload_bytes: float, what: str) -> Transfer:
    """A collective over ``axes``."""
    return Transfer(kind, "".join(sorted(axes)), payload_bytes, what)


def parts_of_a_weight(plan: Plan) -> dict[str, float]:
    """Bytes that one weight takes when it is sent, and its share of its group's scale and zero point.

    XLA sends one int4 value per byte.
    """
    element = max(1.0, BYTES_PER_ELEMENT[plan.weight_dtype])
    if plan.weight_dtype == "mxfp4":
        return {"weights": element, "scales": 1 / MX_BLOCK}
    if plan.weight_group_size is None:
        return {"weights": element}
    group = plan.weight_group_size
    return {"weights": element, "scales": GROUP_SCALE_BYTES / group, "zeros": element / group}

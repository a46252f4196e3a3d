"""What proposes tokens, as a point: a draft model beside the one that verifies, or that one's first layers."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engines.core.model import Model
from engines.core.needs import OfModels
from engines.core.pruning import NONE

if TYPE_CHECKING:
    from engines.core.point import Point


def beside(point: "Point", draft: Model) -> "Point":
    """The point with ``draft`` in the place of its model.

    A key about a part that the draft does not have (experts, latent vectors) is at its default, and attention that it
    has not is split as is best for its own. What is pruned is the model, and not its draft.
    """
    latent = draft.kv_latent_dim is not None
    other = point.attn_sharding == ("heads" if latent else "replicated")
    found = replace(point, model=draft, pruning=NONE, attn_sharding="auto" if other else point.attn_sharding)
    unmet: dict[str, Any] = {
        name: key.default
        for name, key in point.schema().items()
        if isinstance(key.about.needs, OfModels) and not key.about.needs.met(found)
    }
    return replace(found, **unmet)


def first_layers_of(model: Model, count: int) -> Model:
    """The model's first ``count`` layers; those before its layers with experts are a model without any."""
    if model.num_experts is None or count > (model.dense_layers or 0):
        return replace(model, num_layers=count)
    none: dict[str, Any] = dict.fromkeys(
        ("num_experts", "experts_per_token", "expert_d_ff", "shared_expert_d_ff", "dense_layers")
    )
    return replace(model, num_layers=count, router_groups=1, router_groups_kept=1, **none)

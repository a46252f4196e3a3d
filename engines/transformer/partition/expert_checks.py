"""Whether a plan's experts split over their axes."""

from typing import TYPE_CHECKING

from engines.core.errors import InvalidRequest

if TYPE_CHECKING:
    from engines.transformer.partition.plan import Plan


def check_experts(plan: "Plan") -> None:
    """Check that experts split over their axes.

    Raises:
        InvalidRequest: they do not.
    """
    experts, axes, shape = plan.model.experts, plan.experts, list(plan.mesh_shape)
    if experts is None:
        return
    if experts.count % axes.shards:
        raise InvalidRequest(
            "expert_axes",
            plan.expert_axes,
            f"splits the {experts.count} experts of model={plan.model.name} over {axes.shards} chips of"
            f" mesh_shape={shape}",
            "use axes whose chips divide the experts",
        )
    if experts.expert.d_ff % axes.chunks:
        raise InvalidRequest(
            "expert_axes",
            plan.expert_axes or "none",
            f"leaves {axes.chunks} chips of mesh_shape={shape} for the {experts.expert.d_ff} columns of an expert",
            f"use more axes, so that the rest divides {experts.expert.d_ff}",
        )
    local = plan.batch_size // plan.axes.size(plan.axes.batch)
    if axes.all_to_all and local % plan.axes.size(axes.spread):
        raise InvalidRequest(
            "expert_dispatch",
            plan.expert_dispatch,
            f"splits the tokens of {local} sequences over {plan.axes.size(axes.spread)} chips",
            "use a larger batch_size, fewer expert_axes, or expert_dispatch=gather",
        )

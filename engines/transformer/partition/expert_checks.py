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
    if plan.shardings is not None:
        _check_told(plan)
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


def _check_told(plan: "Plan") -> None:
    """Likewise of a plan with shardings of every operator, whose experts are whole or equal parts."""
    experts, axes, told = plan.model.experts, plan.experts, plan.shardings
    assert experts is not None
    assert told is not None
    dims = ".".join(each or "-" for each in told["experts"])
    for size, parts, what in (
        (experts.count, axes.shards, "experts"),
        (experts.expert.d_ff, axes.chunks, "columns of an expert"),
        (plan.model.d_model, axes.axes.size(axes.embed), "rows of an expert"),
    ):
        if size % parts:
            raise InvalidRequest(
                "shardings",
                f"experts:{dims}",
                f"splits the {size} {what} of model={plan.model.name} over {parts} chips",
                "use a plan of this model and mesh",
            )

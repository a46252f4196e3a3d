"""Whether shardings of every operator go with the rest of a plan."""

from typing import TYPE_CHECKING

from engines.core.errors import InvalidRequest

if TYPE_CHECKING:
    from engines.transformer.partition.plan import Plan


def check_shardings(plan: "Plan") -> None:
    """Check that the compiler that is told them partitions, by axes that split its values.

    Raises:
        InvalidRequest: they do not go with the plan.
    """
    told = plan.shardings
    if told is None:
        return
    told.check(plan.model)
    for refused, key, value, remedy in (
        (plan.partitioner != "gspmd", "partitioner", plan.partitioner, "use partitioner=gspmd"),
        (plan.rows_of_group is not None, "weight_group_size", plan.rows_of_group, "leave it out"),
        (plan.model.attention.is_latent, "model", plan.model.name, "use a model that caches keys and values"),
        (bool(plan.prefill.prefix), "engine.shared_prefix", plan.prefill.prefix, "leave it out"),
    ):
        if refused:
            raise InvalidRequest(key, value, "does not go with shardings of every operator", remedy)
    for name, dims in told.cuts:
        if name == "table" or name.endswith(".weights"):
            continue
        tokens = dims[0] if name != "experts" else "".join(plan.experts.entering(((), ()))[0])
        rows = plan.axes.size(tuple(tokens))
        if plan.batch_size % rows:
            raise InvalidRequest(
                "batch_size",
                plan.batch_size,
                f"does not split over the {rows} chips of {name} in the shardings",
                f"use a multiple of {rows}, or plan for this batch",
            )

"""How a draft model is partitioned."""

from dataclasses import replace

from engines.core.draft_point import beside
from engines.core.point import Point
from engines.transformer.partition.plan import Plan
from engines.transformer.partition.resolve import plan_of


def draft_plan(point: Point, plan: Plan) -> Plan | None:
    """The plan of the point's draft model, on the same chips, with what the point leaves open chosen for itself.

    Raises:
        InvalidRequest: the mesh cannot carry it in the layout that the point asks for.
    """
    if point.draft_model is None:
        return None
    found = plan_of(beside(point, point.draft_model), mesh_shape=plan.mesh_shape)
    found = replace(found, prefill=plan.prefill, unrolled=plan.unrolled)
    found.check()
    return found

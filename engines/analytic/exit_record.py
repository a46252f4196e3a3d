"""What a point whose tokens leave early asks of the closed forms, and what its row says of it."""

from typing import Any

from engines.core.early_exit import leaving_of
from engines.core.errors import Unsupported
from engines.core.point import Point


def exit_record(point: Point) -> dict[str, float]:
    """The arrays of a grid that say how much of its layers a decode step skips, and how many exits' logits it makes."""
    leaving = leaving_of(point)
    if leaving is None:
        return {"skipped": 0.0, "exit_heads": 0.0}
    return {"skipped": 1 - leaving.layers_of_a_step / leaving.layers, "exit_heads": leaving.heads}


def exit_facts(point: Point) -> tuple[float | None, dict[str, Any]]:
    """``mean_layers`` of a row, and its details."""
    leaving = leaving_of(point)
    if leaving is None:
        return None, {}
    return leaving.mean_layers, {"layers_of_a_step": leaving.layers_of_a_step, "exits_of_a_step": leaving.heads}


def check_exits(point: Point) -> None:
    """Check that the exits of a point are modelled.

    Raises:
        Unsupported: stages of a pipeline hold its layers, or shardings of every operator are asked for.
    """
    if point.exit_threshold is not None and point.pipeline_degree > 1:
        raise Unsupported(
            f"pipeline_parallel={point.pipeline_degree}: exit_threshold={point.exit_threshold} is modelled with all "
            "layers in one stage; use pipeline_parallel=1"
        )

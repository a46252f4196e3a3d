"""Which way of deciding a point asks for."""

from engines.jax.ways.leaving import Leaving
from engines.jax.ways.speculative import Speculation
from engines.jax.ways.steps import Steps
from engines.jax.work import Work


def way_of(work: Work) -> Steps:
    """The way, which holds nothing yet."""
    if work.point.speculative != "none":
        return Speculation(work)
    return Steps(work) if work.point.exit_threshold is None else Leaving(work)

"""What every part of a program is made from."""

from dataclasses import dataclass

from jax.sharding import Mesh

from engines.core.point import Point
from engines.jax.settings import Settings
from engines.transformer.options import Sampling
from engines.transformer.partition.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """``asked`` is the point as it was asked, ``point`` that of the model that is left of it, which runs."""

    asked: Point
    point: Point
    plan: Plan
    mesh: Mesh
    settings: Settings

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return self.settings.sampling

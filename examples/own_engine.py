"""An engine of your own: it states times, so it answers the same points and makes the same rows as every other.

On the command line it is one file in a config folder of your own (``own/engine/roofline.yaml``):

    PYTHONPATH=examples shardbench run --config-dir examples/own engine=roofline model=palm-62b num_chips=16
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from bench.sweep.catalog import load_chip, load_model
from engines.core.digest import digest
from engines.core.engine import Estimate, Estimator, Facts
from engines.core.point import Point
from engines.core.row import Source

VERSION = 1
"""Counted up when the formula's answers change, so that stored rows are not taken for the new ones."""


class RooflineEngine(Estimator):
    """A decode step takes the larger of its arithmetic at the peak and its weights at the memory's bandwidth."""

    name: ClassVar[str] = "roofline"
    source: ClassVar[Source] = "predicted"
    code: ClassVar[Sequence[str]] = ()

    def __init__(self, **_settings: Any) -> None:
        """No settings."""

    def program_id(self, point: Point) -> str:
        """What decides an answer: the formula's version and the point."""
        return digest(VERSION, point)

    def estimate(self, points: Sequence[Point]) -> list[Estimate]:
        """One answer a point, in order."""
        return [self._one(point) for point in points]

    def _one(self, point: Point) -> Estimate:
        facts = Facts(program_id=self.program_id(point))
        if point.phase != "decode" or point.weight_dtype != "bfloat16" or point.chip.hbm_bytes_per_s is None:
            error = "engine=roofline: times bfloat16 decodes with a datasheet only"
            return Estimate(status="unsupported", error=error, facts=facts)
        flops = 2 * point.model.params * point.batch_size
        compute_s = flops / (point.num_chips * point.chip.peak(point.act_dtype))
        memory_s = 2 * point.model.params / (point.num_chips * point.chip.hbm_bytes_per_s)
        step_s = max(compute_s, memory_s)
        return Estimate(latency_s=step_s * point.decode_steps, step_time_s=step_s, facts=facts)


def main() -> None:
    """Answer one point."""
    engine = RooflineEngine()
    point = Point(
        model=load_model("palm-62b"),
        chip=load_chip("tpu-v4"),
        engine=engine.name,
        phase="decode",
        num_chips=16,
        batch_size=256,
        input_len=1984,
        output_len=64,
    )
    (answer,) = engine.estimate([point])
    print(f"{answer.step_time_s:.4f} s a step, {answer.latency_s:.3f} s in all")


if __name__ == "__main__":
    main()

"""The programs of a point's stages, layer by layer, and their StableHLO."""

from jax.sharding import Mesh

from engines.core.point import Point
from engines.jax.settings import Settings
from engines.transformer.layer_programs import LayerPass, make_layer_pass
from engines.transformer.partition.plan import Plan


def layer_pass(point: Point, plan: Plan, mesh: Mesh, settings: Settings, stage: str) -> LayerPass:
    """The programs of a stage: a prompt's pass, or a decode step."""
    if stage == "prefill":
        length = max(point.input_len, 1)
        return make_layer_pass(plan, mesh, length, length, start=0, sampling=settings.sampling)
    return make_layer_pass(plan, mesh, 1, plan.cache_len, sampling=settings.sampling)


def layer_texts(point: Point, plan: Plan, mesh: Mesh, settings: Settings) -> dict[str, str]:
    """The StableHLO of the programs that a point times."""
    stages = [] if point.phase == "decode" else ["prefill"]
    stages += ["decode"] if point.decode_steps else []
    return {
        f"{stage} {name}": program.lower(*made.arguments[name]).as_text()
        for stage in stages
        for made in [layer_pass(point, plan, mesh, settings, stage)]
        for name, program in made.programs()
    }

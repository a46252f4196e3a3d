"""The named layouts as choices: each is one way to give every operator a sharding."""

from collections.abc import Iterator

from engines.analytic.alpa.graph import Choice, Graph
from engines.analytic.alpa.roles import roles_of
from engines.core.layout import LAYOUTS
from engines.core.model import Model
from engines.core.shardings import projections
from engines.core.slice import MeshShape
from engines.transformer.partition.axes import MeshAxes

Name = tuple[str, str]
"""(ffn_layout, attn_sharding)."""


def named_choices(
    model: Model, mesh: MeshShape, batch: int, graph: Graph, *, megatron: bool = False
) -> Iterator[tuple[Name, Choice]]:
    """Every named layout that splits the model over the mesh, with attention over heads and over the batch.

    Where ``megatron``, 1D tensor parallelism keeps the residual stream whole on every chip (Shoeybi et al. 2019).
    """
    for layout in LAYOUTS.values():
        for attention in ("heads", "batch"):
            whole = megatron and layout.name == "ws_1d"
            axes = MeshAxes(layout, mesh, attention, batch, whole_residual=whole)
            if attention == "batch" and not axes.attention and axes.column:
                continue
            found = choice_of(model, axes)
            if graph.allows(found):
                yield (layout.name, attention), {each.name: found[each.name] for each in graph.operators}


def choice_of(model: Model, axes: MeshAxes) -> Choice:
    """The shardings of a named layout's operators, as :mod:`engines.transformer.layers` runs them."""
    columns = roles_of({"t": axes.batch, "c": axes.column})
    found = {
        "residual": roles_of({"t": axes.batch, "c": axes.residual}),
        "table": roles_of({"k": axes.stored_embed, "n": axes.stored_ffn}),
        "attention": roles_of({"t": axes.sequence, "c": axes.head}),
    }
    if model.block == "serial":
        found["middle"] = found["residual"]
    for name in projections(model):
        found[f"{name}.in"] = roles_of({"t": axes.batch, "k": axes.embed, "n": axes.ffn})
        found[f"{name}.out"] = roles_of({"t": axes.batch, "k": axes.ffn, "n": axes.embed})
        found[f"{name}.in.weights"] = roles_of({"k": axes.stored_embed, "n": axes.stored_ffn})
        found[f"{name}.out.weights"] = roles_of({"k": axes.stored_ffn, "n": axes.stored_embed})
        found[f"{name}.columns"] = columns
        if name != "ffn":
            found[f"{name}.joined"] = columns
    return found

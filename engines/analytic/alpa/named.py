"""The named layouts as choices: each is one way to give every operator a sharding."""

from collections.abc import Iterator

from engines.analytic.alpa.graph import Choice, Graph
from engines.analytic.alpa.roles import roles_of
from engines.core.layout import EXPERT_AXES, LAYOUTS
from engines.core.model import Model
from engines.core.shardings import projections
from engines.core.slice import MeshShape
from engines.transformer.partition.axes import MeshAxes

Name = tuple[str, ...]
"""(ffn_layout, attn_sharding), and of experts (expert_axes, expert_dispatch)."""


def named_choices(
    model: Model, mesh: MeshShape, batch: int, graph: Graph, *, megatron: bool = False
) -> Iterator[tuple[Name, Choice]]:
    """Every named layout that splits the model over the mesh, with attention over heads and over the batch.

    Experts are over any axes, and tokens are gathered or sent. Where ``megatron``, 1D tensor parallelism keeps the
    residual stream whole on every chip (Shoeybi et al. 2019).
    """
    for layout in LAYOUTS.values():
        for attention in ("heads", "batch"):
            whole = megatron and layout.name == "ws_1d"
            axes = MeshAxes(layout, mesh, attention, batch, whole_residual=whole)
            if attention == "batch" and not axes.attention and axes.column:
                continue
            for name, experts in _with_experts(model, axes):
                found = choice_of(model, axes) | experts
                if graph.allows(found):
                    yield (layout.name, attention, *name), {each.name: found[each.name] for each in graph.operators}


def _with_experts(model: Model, axes: MeshAxes) -> Iterator[tuple[Name, dict[str, str]]]:
    """Experts beside a layout, which cuts them along axes that do not split them; nothing, once, without experts."""
    if model.num_experts is None:
        yield (), {}
        return
    for over in ("", *EXPERT_AXES[2:]):
        if any(axes.size((axis,)) == 1 for axis in over):
            continue
        for dispatch, letter in (("gather", "e"), ("all_to_all", "a")) if over else (("gather", "e"),):
            cut = {"k": axes.embed, "n": axes.ffn, "g": axes.batch}
            left = {key: [axis for axis in named if axis not in over] for key, named in cut.items()}
            yield (over or "none", dispatch), {"experts": roles_of({**left, letter: over})}


def choice_of(model: Model, axes: MeshAxes) -> dict[str, str]:
    """The shardings of a named layout's operators, as :mod:`engines.transformer.layers` runs them; without experts."""
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

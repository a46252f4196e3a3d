"""From a point to a plan."""

from engines.point import Point
from engines.slice import MeshShape
from engines.transformer.plan import Plan, resolve_layout


def plan_of(point: Point, *, ffn_layout: str | None = None, mesh_shape: MeshShape | None = None) -> Plan:
    """The point's layout with every ``auto`` decided: by ``ffn_layout`` where given, else by :func:`resolve_layout`.

    ``mesh_shape`` is the mesh of devices where that is not the mesh of chips.
    """
    mesh = mesh_shape or point.mesh
    layout, attention = resolve_layout(
        point.model,
        mesh,
        ffn_layout or point.ffn_layout,
        point.attn_sharding,
        batch_size=point.batch_size,
        decodes=point.phase != "prefill",
    )
    return Plan(
        model=point.model,
        mesh_shape=mesh,
        ffn_layout=layout,
        attn_sharding=attention,
        batch_size=point.batch_size,
        cache_len=point.input_len + point.output_len,
        weight_dtype=point.weight_dtype,
        act_dtype=point.act_dtype,
        kv_dtype=point.kv_dtype,
        collectives="plain" if point.collectives == "auto" else point.collectives,
        partitioner=point.partitioner,
    )

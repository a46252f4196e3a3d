"""Meshes of this machine's devices, and plans of small models on them."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from bench.sweep.catalog import load_model
from builders.models import MODELS
from engines.core.model import Model
from engines.transformer.partition.plan import Plan

Shape = tuple[int, int, int]


def mesh_of(shape: Shape) -> Mesh:
    """The first devices of this machine as a mesh."""
    count = int(np.prod(shape))
    return jax.make_mesh(shape, ("x", "y", "z"), devices=jax.devices("cpu")[:count], axis_types=(AxisType.Auto,) * 3)


def plan_of(
    model: str | Model = "palm",
    shape: Shape = (1, 1, 1),
    ffn_layout: str = "ws_1d",
    attn_sharding: str = "heads",
    batch_size: int = 8,
    cache_len: int = 8,
    **settings: Any,
) -> Plan:
    """A plan that its mesh can carry. The model is one of ``MODELS`` or of ``conf/model`` by its name, or as it is.

    Raises:
        InvalidRequest: the mesh cannot carry the model in this layout.
    """
    if isinstance(model, str):
        model = MODELS[model] if model in MODELS else load_model(model)
    plan = Plan(
        model=model,
        mesh_shape=shape,
        ffn_layout=ffn_layout,
        attn_sharding=attn_sharding,
        batch_size=batch_size,
        cache_len=cache_len,
        **settings,
    )
    plan.check()
    return plan

"""Makes a plan's layers where a point wants them to wait, one layer at a time, and what stays on the devices."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from engines.core.dtypes import BYTES_PER_ELEMENT
from engines.core.fingerprint import fingerprint
from engines.core.pruning import NONE
from engines.host.scratch import ScratchFolder
from engines.jax.offload.layers import (
    FileLayers,
    FirstStay,
    HostLayers,
    Layers,
    ResidentLayers,
    in_host_memory,
    shards_of,
)
from engines.jax.offload.packed import PackedLayers, has_four_bits, packed, packed_shapes
from engines.jax.work import Work
from engines.offload.layer_file import LayerFile, LayerWriter
from engines.transformer.comm.preshuffle import preshuffle_layers
from engines.transformer.params.describe import described
from engines.transformer.params.parameters import abstract_parameters, make_arrays, parameter_specs
from engines.transformer.params.tree import Parameters
from engines.transformer.partition.plan import Plan
from engines.weights.random import Source


def resident_parameters(plan: Plan, mesh: Mesh, source: Source) -> Parameters:
    """What every pass reads at its ends, on the devices: embedding, norms and output matrix, no layers."""
    made: Parameters = make_arrays(plan, mesh, replace(described(plan, source), layers=()))
    return made


def layers_of(work: Work, source: Source) -> Layers:
    """The layers where ``offload`` says; never more than one of them is on the devices meanwhile.

    Raises:
        ShardbenchError: ``offload_dir`` cannot be written.
    """
    plan, mesh = work.plan, work.mesh
    if work.point.offload == "none":
        return ResidentLayers(list(_made(plan, mesh, source)))
    placed = abstract_parameters(plan, mesh).layers
    waiting = [packed_shapes(each) for each in placed]
    made, count = _made(plan, mesh, source), work.point.staying_layers
    first = list(islice(made, count))
    try:
        layers: Layers = _waiting(work, source, waiting, made)
    except BaseException:
        ResidentLayers(first).close()
        raise
    layers = PackedLayers(layers, placed) if any(map(has_four_bits, placed)) else layers
    return FirstStay(first, layers) if first else layers


def _waiting(work: Work, source: Source, placed: Sequence[Any], made: Iterator[Any]) -> Layers:
    """``made`` are the layers behind the first ones; a file has all of them, for any point with the same."""
    plan, mesh, settings = work.plan, work.mesh, work.settings
    if work.point.offload == "host":
        waiting = [in_host_memory(packed(each)) for each in made]
        return HostLayers([*[()] * work.point.staying_layers, *waiting], placed)
    identity = _identity(work)
    if settings.offload_dir is not None:
        folder = Path(settings.offload_dir).expanduser() / identity
        file = LayerFile.found(folder, identity) or _written(folder, identity, plan, mesh, source)
        return FileLayers(file, placed, lambda: None)
    scratch = ScratchFolder()
    try:
        return FileLayers(_written(scratch.path, identity, plan, mesh, source), placed, scratch.close)
    except BaseException:
        scratch.close()
        raise


def _written(folder: Path, identity: str, plan: Plan, mesh: Mesh, source: Source) -> LayerFile:
    writer = LayerWriter(folder, identity)
    for each in map(packed, _made(plan, mesh, source)):
        writer.add([shard for array in jax.tree.leaves(each) for shard in shards_of(array)])
        for array in jax.tree.leaves(each):
            array.delete()
    return writer.close()


def _made(plan: Plan, mesh: Mesh, source: Source) -> Iterator[Any]:
    """Each layer's parameters on the devices, as the programs read them."""
    descriptions, specs = described(plan, source).layers, parameter_specs(plan).layers
    for description, spec in zip(descriptions, specs, strict=True):
        (made,) = preshuffle_layers(plan, mesh, (make_arrays(plan, mesh, description),), (spec,))
        yield made


def _identity(work: Work) -> str:
    """A digest of the values and of how they are cut: two points with the same have the same file."""
    plan, settings, asked = work.plan, work.settings, work.asked
    shapes = [(each.shape, each.dtype, str(each.spec)) for each in jax.tree.leaves(described(plan).layers)]
    options = {"seed": settings.seed, **settings.options()}
    weights = options.get("checkpoint", settings.seed)
    model, overlap = fingerprint({"model": plan.model}), plan.overlap.name
    values: tuple[Any, ...] = (model, plan.mesh_shape, overlap, plan.collectives, shapes, weights)
    if asked.pruning != NONE:
        # Which parts stay depends on the whole model, and on what they are chosen by.
        by = [settings.pruning_by, options.get("calibration_text"), settings.seed]
        values += (asked.pruning, fingerprint({"model": asked.model}), by)
    if jax.process_count() > 1:
        values += (jax.process_count(), jax.process_index())  # each process has the shards of its own devices
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def layer_payload_bytes(plan: Plan) -> list[float]:
    """Bytes of each layer's arrays over all chips, each array once: the closed form of what a file holds of it."""
    return [sum(_bytes(each) for each in jax.tree.leaves(description)) for description in described(plan).layers]


def _bytes(each: Any) -> float:
    count = 1
    for size in each.shape:
        count *= size
    return count * BYTES_PER_ELEMENT[each.dtype]

"""The small programs: matmuls, streams, copies, collectives over every axis, a ring step, attention.

Each maps a value to one of the same shape, so that it can run many times in a loop, on absent chips and on present ones.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jax import Array
    from jax.sharding import Mesh

TURNS: Final = 16
"""Turns of the loop; a loop of one or two would be unrolled."""
MATMULS: Final = ((8, 4096), (128, 4096), (2048, 4096), (8192, 8192))
"""Rows of the activation, and the side of the square matrix."""
STREAM_BYTES: Final = (2**20, 2**30)
"""Arrays that fit on any chip's memory, and that fit on none."""
COLLECTIVE_BYTES: Final = (2**16, 2**23)
"""Bytes of the whole value on one chip."""
COLLECTIVES: Final = ("all-reduce", "reduce-scatter + all-gather", "all-to-all", "collective-permute")
HEADS, POSITIONS, HEAD_DIM = 8, 4096, 128


@dataclass(frozen=True, kw_only=True)
class Program:
    """``turn`` maps the first of the arguments to its next value; ``shapes`` are those of one device's arguments.

    ``flops`` and ``dtype`` are of one turn on one device, ``whole_bytes`` those that its collective exchanges along the
    mesh's ``axes``, ``rounds`` how often they pass (2 of an all-reduce).
    """

    kind: str
    name: str
    dtype: str
    turn: "Callable[..., Array]"
    shapes: tuple[tuple[tuple[int, ...], str], ...]
    flops: float = 0.0
    axes: tuple[str, ...] = ()
    whole_bytes: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)


def programs(mesh: "Mesh") -> Iterator[Program]:
    """All of them for a mesh; collectives for its axes of more than one device, alone and together."""
    yield from _matmuls()
    yield from _streams()
    yield _attention()
    sizes = {name: size for name, size in mesh.shape.items() if size > 1}
    choices = [(name,) for name in sizes] + ([tuple(sizes)] if len(sizes) > 1 else [])
    for axes in choices:
        for count in COLLECTIVE_BYTES:
            yield from _collectives(axes, [sizes[axis] for axis in axes], count)
    if sizes:
        yield _ring_step(*next(iter(sizes.items())))


def looped(program: Program, mesh: "Mesh") -> tuple[Any, tuple[Any, ...]]:
    """The jitted loop of ``TURNS`` turns on every device of the mesh, and its arguments as shapes."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    names = tuple(mesh.axis_names)
    whole = PartitionSpec(names)

    def run(first: Any, *rest: Any) -> Any:
        return jax.lax.fori_loop(0, TURNS, lambda _, value: program.turn(value, *rest), first)

    specs = (whole,) * len(program.shapes)
    mapped = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=False)
    sharding = NamedSharding(mesh, whole)
    arguments = tuple(
        jax.ShapeDtypeStruct((shape[0] * mesh.size, *shape[1:]), dtype, sharding=sharding)
        for shape, dtype in program.shapes
    )
    return jax.jit(mapped), arguments


def _matmuls() -> Iterator[Program]:
    import jax.numpy as jnp
    from jax import lax

    def turn(value: Any, matrix: Any) -> Any:
        wide = jnp.int32 if value.dtype == jnp.int8 else jnp.float32
        return lax.dot(value, matrix, preferred_element_type=wide).astype(value.dtype)

    for rows, side in MATMULS:
        for dtype in ("bfloat16", "int8"):
            shapes = (((rows, side), dtype), ((side, side), dtype))
            flops = 2.0 * rows * side * side
            yield Program(
                kind="matmul",
                name=f"[{rows}, {side}] x [{side}, {side}]",
                dtype=dtype,
                turn=turn,
                shapes=shapes,
                flops=flops,
            )


def _streams() -> Iterator[Program]:
    for count in STREAM_BYTES:
        side = int((count / 4) ** 0.5)
        shape = (((side, side), "float32"),)
        name = f"{count / 2**20:g} MiB"
        yield Program(kind="add", name=name, dtype="float32", turn=lambda value: value + 1, shapes=shape)
        yield Program(kind="transpose", name=name, dtype="float32", turn=lambda value: value.T, shapes=shape)


def _attention() -> Program:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    mask = masks.MultiHeadMask([masks.CausalMask((POSITIONS, POSITIONS)) for _ in range(HEADS)])

    def turn(query: Any, key: Any, value: Any) -> Any:
        kernel = splash.make_splash_mha(mask=mask, head_shards=1, q_seq_shards=1)
        return kernel(query, key, value).astype(query.dtype)

    shape = ((HEADS, POSITIONS, HEAD_DIM), "bfloat16")
    flops = 2 * 2.0 * HEADS * POSITIONS * (POSITIONS + 1) / 2 * HEAD_DIM  # two products of the causal half
    name = f"{HEADS} heads, {POSITIONS} positions"
    return Program(kind="splash attention", name=name, dtype="bfloat16", turn=turn, shapes=(shape,) * 3, flops=flops)


def _collectives(axes: tuple[str, ...], sizes: list[int], count: int) -> Iterator[Program]:
    import math

    from jax import lax

    chips = math.prod(sizes)

    def reduce(value: Any) -> Any:
        return lax.psum(value, axes) * (1.0 / chips)

    def scatter_gather(value: Any) -> Any:
        part = lax.psum_scatter(value, axes, scatter_dimension=0, tiled=True) * (1.0 / chips)
        return lax.all_gather(part, axes, axis=0, tiled=True)

    def exchange(value: Any) -> Any:
        return lax.all_to_all(value, axes, split_axis=0, concat_axis=0, tiled=True) + 1

    def pass_on(value: Any) -> Any:
        return lax.ppermute(value, axes, [(chip, (chip + 1) % chips) for chip in range(chips)]) + 1

    shape = (((count // 2 // 1024, 1024), "bfloat16"),)
    if shape[0][0][0] % chips:
        shape = (((count // 2 // 128, 128), "bfloat16"),)
    for kind, turn in zip(COLLECTIVES, (reduce, scatter_gather, exchange, pass_on), strict=True):
        if kind == "collective-permute" and len(axes) > 1:
            continue  # one ring through all chips is no path of the torus
        yield Program(
            kind=kind,
            name=f"{count / 2**10:g} KiB over {', '.join(axes)}",
            dtype="bfloat16",
            turn=turn,
            shapes=shape,
            axes=axes,
            whole_bytes=count,
        )


def _ring_step(axis: str, size: int) -> Program:
    """One step of a looped matmul: the value goes on while the one that came is multiplied."""
    import jax.numpy as jnp
    from jax import lax

    rows, side = 512, 2048

    def turn(value: Any, matrix: Any) -> Any:
        passed = lax.ppermute(value, axis, [(chip, (chip + 1) % size) for chip in range(size)])
        product = lax.dot(value, matrix, preferred_element_type=jnp.float32).astype(value.dtype)
        return passed + product

    shapes = (((rows, side), "bfloat16"), ((side, side), "bfloat16"))
    return Program(
        kind="ring step",
        name=f"[{rows}, {side}] x [{side}, {side}] over {axis}",
        dtype="bfloat16",
        turn=turn,
        shapes=shapes,
        flops=2.0 * rows * side * side,
        axes=(axis,),
        whole_bytes=2.0 * rows * side,
    )

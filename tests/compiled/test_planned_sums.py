"""What XLA emits for sums and moves of sharded values, against the rules that Alpa's costs are made of."""

import itertools
import math

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bench.sweep.catalog import load_chip, load_model
from engines.analytic.alpa.costs import EVEN
from engines.analytic.alpa.gpu_costs import costs_of
from engines.analytic.alpa.network import Network
from engines.analytic.alpa.roles import having, sent
from engines.analytic.alpa.sums import Product
from engines.analytic.grid import grid_of
from engines.compiled.hlo.source import NOWHERE, read_sources
from engines.compiled.program.breakdown import axes_of, runs_of
from engines.compiled.program.estimate import Settings, estimate_function
from engines.compiled.program.placement import absent_mesh
from engines.core.point import Point
from engines.core.slice import slice_of

MESHES = {"tpu-v4": (4, 4, 4), "h100-80gb": (2, 2, 2)}
SUMS = {
    "scattered": ("knn", "ccc", 64, 8192, 32768),
    "scattered_to_tokens": ("nnk", "cct", 64, 8192, 32768),
    "two_axes": ("nkk", "ccc", 64, 32768, 8192),
    "part_of_a_tile": ("knn", "ccc", 64, 8192, 64 * 520),
    "tile_along_tokens": ("knn", "ccc", 128, 8192, 64 * 520),
    "few_tokens": ("nkk", "ctt", 64, 32768, 8192),
    "whole": ("nkk", "crr", 64, 32768, 8192),
    "three_axes": ("kkk", "ccc", 64, 32768, 32768),
    "two_dimensions": ("nkk", "cct", 64, 32768, 8192),
    "rest_of_a_split_dimension": ("nkk", "crc", 64, 32768, 8192),
    "rest_of_a_whole_dimension": ("nkk", "crt", 64, 32768, 8192),
    "short_of_a_ring": ("nnk", "cct", 64, 4 * 2560, 32768),
    "ring": ("nnk", "cct", 64, 4 * 3584, 32768),
}
MOVES = [
    ("ccc", "ttt"),
    ("ttt", "ccc"),
    ("tcc", "ttt"),
    ("ttt", "ttr"),
    ("ccc", "rcc"),
    ("ttt", "crt"),  # exchanged and gathered: the whole value
    ("ttt", "rcc"),
    ("cct", "crr"),  # along both dimensions
]


def spec(roles, target, *letters):
    """Axes of each dimension: those that stay, then those that move on, each z before y before x."""
    pairs = dict(zip("xyz", zip(roles, target, strict=True), strict=True))
    dims = []
    for letter, stays in letters:
        mine = [axis for axis in "zyx" if pairs[axis][0] == letter]
        dims.append(tuple(sorted(mine, key=lambda axis: pairs[axis][1] != stays)) or None)
    return P(*dims)


def target_spec(roles, target, own):
    """A target's axes: those of the dimension itself, then those that come to it."""
    dims = []
    for letter, mine in own:
        axes = [axis for axis in "zyx" if target["xyz".index(axis)] == letter]
        dims.append(tuple(sorted(axes, key=lambda axis: roles["xyz".index(axis)] != mine)) or None)
    return P(*dims)


@pytest.fixture(scope="module", params=MESHES)
def emitted(request):
    """(chip, scope → kinds and axes of its collectives) of one program of all cases."""
    chip, sizes = request.param, MESHES[request.param]
    if chip == "h100-80gb":
        pytest.importorskip("jax_plugins.xla_cuda12", reason="the compiler comes with shardbench[gpu-compiler]")
    slice_ = slice_of(load_chip(chip), math.prod(sizes), sizes)
    mesh = absent_mesh(slice_)

    def split(x, dims):
        return lax.with_sharding_constraint(x, NamedSharding(mesh, dims))

    def program(operands, values):
        made = [values[0]]

        def after_the_last(x):
            # Collectives of several cases would be combined.
            x, made[-1] = lax.optimization_barrier((x, made[-1]))
            return x

        for (name, (roles, target, *_)), (x, w) in zip(SUMS.items(), operands, strict=True):
            with jax.named_scope(f"case_{name}"):
                product = jnp.einsum("tr,rc->tc", after_the_last(x), w, preferred_element_type=jnp.float32).astype(
                    x.dtype
                )
                made.append(jnp.tanh(split(product, target_spec(roles, target, (("t", "t"), ("c", "n"))))))
        for (before, after), x in zip(MOVES, values, strict=True):
            with jax.named_scope(f"case_{before}_{after}"):
                made.append(
                    jnp.tanh(split(jnp.sin(after_the_last(x)), target_spec(before, after, (("t", "t"), ("c", "c")))))
                )
        return made

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16)

    operands = [(array(tokens, rows), array(rows, columns)) for _, _, tokens, rows, columns in SUMS.values()]
    specs = [
        (spec(roles, target, ("t", "t"), ("k", "")), spec(roles, target, ("k", ""), ("n", "c")))
        for roles, target, *_ in SUMS.values()
    ]
    moved = [spec(before, after, ("t", "t"), ("c", "c")) for before, after in MOVES]
    found = estimate_function(
        program,
        (operands, [array(512, 16384) for _ in MOVES]),
        slice_,
        mesh,
        Settings(),
        in_shardings=(specs, moved),
        name="sums",
    )
    module, schedule = found.timed.module, found.timed.schedule
    sources = read_sources(module).named(module, schedule.computations)
    kinds = {}
    for name in runs_of(schedule):
        for step in schedule.computations[name]:
            if step.collective is not None:
                scope = next(
                    part[5:]
                    for part in sources.get(step.name, NOWHERE).operation.split("/")
                    if part.startswith("case_")
                )
                axes = "".join(axes_of(step.collective, dict(zip("xyz", sizes, strict=True))))
                kinds.setdefault(scope, []).append((step.collective.opcode, axes, step.collective.whole_bytes))
    return chip, kinds


def product_of(chip, tokens, rows, columns):
    mesh = MESHES[chip]
    point = Point(
        model=load_model("llama-3-8b"), chip=load_chip(chip), num_chips=math.prod(mesh), mesh_shape=mesh,
        engine="analytic", phase="decode", batch_size=tokens, input_len=64, output_len=1,
    )  # fmt: skip
    grid = grid_of([point])
    return Product(costs_of(grid, prefill=False), Network(grid, mesh), [(rows, EVEN)], [(columns, EVEN)], into=True)


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_is_the_collective_that_the_rules_name(emitted, name):
    roles, target, *shape = SUMS[name]
    chip, kinds = emitted
    expected = [(each.kind, each.axes) for each in product_of(chip, *shape).sums(roles, target)]
    # Padding to whole tiles sends some columns to the neighbour.
    found = [(kind, axes) for kind, axes, size in kinds[name] if kind != "collective-permute" or name == "ring"]
    if name == "ring" and chip == "tpu-v4":
        assert expected == [("ring", "z")]
        assert {kind for kind, _ in found} == {"collective-permute"}
        return
    assert sorted(found) == sorted(expected)
    side = MESHES[chip][0]
    terms = shape[0] / side ** len(having(roles, "t")) * shape[2] / side ** len(having(roles, "n")) * 4
    largest = max(size for kind, _, size in kinds[name] if kind == expected[0][0])
    assert largest == pytest.approx(terms, rel=0.02)


@pytest.mark.parametrize(("before", "after"), MOVES)
def test_a_move_is_the_collective_that_the_rules_name(emitted, before, after):
    chip, kinds = emitted
    expected = [each for each in sent(before, after) if each.kind != "copy"]
    found = kinds[f"{before}_{after}"]
    if chip == "h100-80gb" and len(expected) < len(sent(before, after)):
        # Along both dimensions: a GPU's compiler gathers along one and then along the other, and copies nothing.
        assert sorted("".join(axes for _, axes, _ in found)) == sorted(expected[0].axes)
        found = [("all-gather", expected[0].axes, max(size for _, _, size in found))]
    assert [(kind, axes) for kind, axes, _ in found] == [(each.kind, each.axes) for each in expected]
    for (_, _, size), each in zip(found, expected, strict=True):
        assert size == 512 * 16384 * 2 / MESHES[chip][0] ** len(each.rows + each.columns)


def test_axes_in_their_order_take_no_permute(emitted):
    kinds = itertools.chain.from_iterable(emitted[1][f"{before}_{after}"] for before, after in MOVES)
    assert "collective-permute" not in {kind for kind, _, _ in kinds}

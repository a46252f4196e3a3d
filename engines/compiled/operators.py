"""What the compiler made of each operator of a layer: the shapes that a chip multiplies, and the collectives it runs.

The Transformer names its operators (``jax.named_scope``), and a compiler keeps the name in the metadata of what it
makes of one: of the matmul, and of every collective that it inserts for it. How a matmul is split is read from its
shape on a chip: tokens, rows and columns of the whole matmul over those on a chip. Along which axes is only known of
collectives.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engines.compiled.cost.base import CostModel
from engines.compiled.hlo.opcodes import is_cublas
from engines.compiled.hlo.parser import Computation, Instruction, Module
from engines.compiled.hlo.schedule import Kind, Step
from engines.compiled.hlo.source import NOWHERE, read_sources
from engines.compiled.program.breakdown import axes_of, runs_of
from engines.compiled.timed import TimedProgram

if TYPE_CHECKING:
    from engines.transformer.partition.plan import Plan

OTHER: Final = "between operators"
"""What has no operator's name: loops, what adds to the residual stream, sampling."""
_NAMES: Final = re.compile(r"(?:^|/)(norm|embedding|head|attention|experts|(?:fused|attn|ffn)\.(?:in|out))(?=/|$)")
_DEEPEST: Final = 8
"""Most fusions inside one another that are searched for matmuls."""
_MOST: Final = 8
"""Matmuls of an operator that are told, the largest first."""
Dims = tuple[int, int, int]
"""Tokens, rows and columns of a matmul [tokens, rows]·[rows, columns]."""


@dataclass(frozen=True, slots=True)
class _Product:
    """A matmul of the text: its two free dimensions, and the contracted one."""

    left: int
    contracted: int
    right: int

    @property
    def work(self) -> int:
        """Products of two numbers."""
        return self.left * self.contracted * self.right


def operator_of(operation: str) -> str:
    """The operator that JAX's path to an operation names last: ``jit(decode)/while/body/ffn.in/dot`` is ``ffn.in``."""
    found = _NAMES.findall(operation)
    return str(found[-1]) if found else OTHER


def operators_of(
    program: TimedProgram, plan: "Plan", tokens: int, cost: CostModel, passes: int
) -> list[dict[str, Any]]:
    """Every operator as JSON values, those of a layer first; seconds, counts and bytes are of one pass.

    ``tokens`` pass at once. Of each: ``matmuls`` with their shape on a chip and into how many parts that cuts tokens,
    rows and columns; ``collectives`` by kind and axes, with how often they run and the bytes of a chip's larger side
    in one run; ``compute_s``. Communication counts in full, hidden or not.
    """
    module, schedule = program.module, program.schedule
    sources = read_sources(module).named(module, schedule.computations)
    sizes = dict(zip("xyz", plan.mesh_shape, strict=True))
    found: dict[str, _Operator] = {}
    for name, runs in runs_of(schedule).items():
        home = module[name]
        for step in schedule.computations[name]:
            if not runs or (step.kind is not Kind.COMPUTE and step.collective is None):
                continue
            operator = operator_of(sources.get(step.name, NOWHERE).operation)
            mine = found.setdefault(operator, _Operator({}, {}))
            mine.add(module, home, step, runs / passes, cost, sizes)
    whole = whole_matmuls(plan, tokens)
    order = [*(name for name in whole if name in found), *(name for name in found if name not in whole)]
    return [{"operator": name, **found[name].plain(whole.get(name))} for name in order]


def whole_matmuls(plan: "Plan", tokens: int) -> dict[str, Dims]:
    """Operator → tokens, rows and columns of its matmul over all chips, padding included; the head's are of a batch."""
    from engines.transformer.params.fusion import input_parts, output_parts

    width, chips = plan.model.d_model, plan.chips
    found = {}
    for name, parts in input_parts(plan).items():
        found[f"{name}.in"] = (tokens, width, chips * sum(size for _, size in parts))
    for name, parts in output_parts(plan).items():
        found[f"{name}.out"] = (tokens, chips * sum(size for _, size in parts), width)
    return {**found, "head": (plan.batch_size, width, plan.padded.vocab)}


@dataclass(slots=True)
class _Operator:
    """Sums of one operator: its products with their runs, and (kind, axes, bytes) → runs and seconds."""

    products: dict[_Product, float]
    collectives: dict[tuple[str, str, float], list[float]]
    compute_s: float = 0.0

    def add(
        self, module: Module, home: Computation, step: Step, runs: float, cost: CostModel, sizes: Mapping[str, int]
    ) -> None:
        """Count a step that runs so often in a pass."""
        if step.collective is not None:
            axes = "".join(axes_of(step.collective, sizes))
            key = (step.collective.opcode, axes, step.collective.whole_bytes)
            sums = self.collectives.setdefault(key, [0.0, 0.0])
            sums[0] += runs
            sums[1] += runs * cost.collective_time(step.collective).seconds
        if step.kind is Kind.COMPUTE:
            self.compute_s += runs * cost.compute_time(step).seconds
        each = home.by_name.get(step.name)
        for product in () if each is None else _products(module, home, each, 0):
            self.products[product] = self.products.get(product, 0.0) + runs

    def plain(self, whole: Dims | None) -> dict[str, Any]:
        """As JSON values."""
        matmuls = []
        largest = sorted(self.products.items(), key=lambda each: -each[0].work * each[1])
        for product, runs in largest[:_MOST]:
            dims, parts = _split(product, whole)
            matmuls.append({"on_chip": list(dims), "parts": parts, "runs": _rounded(runs)})
        return {
            "matmuls": matmuls,
            "compute_s": _rounded(self.compute_s),
            "collectives": [
                {"kind": kind, "axes": axes, "bytes": size, "runs": _rounded(runs), "seconds": _rounded(seconds)}
                for (kind, axes, size), (runs, seconds) in sorted(
                    self.collectives.items(), key=lambda each: -each[1][1]
                )
            ],
        }


def _split(product: _Product, whole: Dims | None) -> tuple[Dims, list[float] | None]:
    """Tokens, rows and columns on a chip, and the number of parts of each; None where it is no part of the whole.

    Compilers swap the sides of a matmul: the way round is the one that divides the whole.
    """
    ways = [
        (product.left, product.contracted, product.right),
        (product.right, product.contracted, product.left),
    ]
    if whole is None:
        return ways[0], None
    for dims in ways:
        if all(all_ % mine == 0 for all_, mine in zip(whole, dims, strict=True)):
            return dims, [all_ // mine for all_, mine in zip(whole, dims, strict=True)]
    return ways[0], None


def _products(module: Module, home: Computation, each: Instruction, depth: int) -> Iterator[_Product]:
    """The matmuls that an instruction is or fuses, without batch dimensions."""
    if each.opcode in ("fusion", "call", "async-start") and depth < _DEEPEST:
        for name in each.called("calls", "to_apply"):
            for inner in module[name].instructions:
                yield from _products(module, module[name], inner, depth + 1)
    elif each.opcode in ("convolution", "dot") or is_cublas(each):
        sides = [home.by_name.get(name) for name in each.operands[:2]]
        if sides[0] is not None and sides[1] is not None:
            made = math.prod(each.shapes[0].dims)
            sizes = [math.prod(side.shapes[0].dims) for side in sides if side is not None]
            # [m, k]·[k, n]: m·k·k·n / m·n = k².
            contracted = math.isqrt(sizes[0] * sizes[1] // made) if made else 0
            if contracted and contracted * contracted * made == sizes[0] * sizes[1]:
                yield _Product(sizes[0] // contracted, contracted, sizes[1] // contracted)


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")

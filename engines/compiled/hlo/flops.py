"""Floating-point operations of an instruction: matmuls and elementwise arithmetic.

A matmul of [M, K] and [K, N] is 2·M·N·K operations. An elementwise operation counts one per element of its result, a
reduction one per element that it reads. What a fusion calls counts once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from engines.compiled.hlo.opcodes import is_cublas
from engines.compiled.hlo.parser import Computation, Instruction, Module

_ELEMENTWISE: Final = frozenset(
    {
        "add", "subtract", "multiply", "divide", "maximum", "minimum", "negate", "abs", "power", "remainder", "sqrt",
        "rsqrt", "cbrt", "exponential", "exponential-minus-one", "log", "log-plus-one", "tanh", "logistic", "erf",
        "sine", "cosine", "tan", "atan2",
    }
)  # fmt: skip
_MULTIPLYING: Final = frozenset({"convolution", "dot", "custom-call", "fusion"})
_DTYPES: Final = {
    "f64": "float64",
    "f32": "float32",
    "bf16": "bfloat16",
    "f16": "float16",
    "f8e4m3fn": "float8_e4m3",
    "f8e5m2": "float8_e5m2",
    "s8": "int8",
    "s4": "int4",
}
"""Element types of a matmul's operands → this project's names, the wider first."""
_VECTOR: Final = ("f64", "f32", "bf16", "f16")


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations by dtype: ``matmul`` by the wider operand; ``vector`` for everything else."""

    matmul: Mapping[str, float] = field(default_factory=dict)
    vector: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """All operations."""
        return sum(self.matmul.values()) + sum(self.vector.values())


def flops_of(module: Module, computation: Computation, each: Instruction) -> Flops | None:
    """Operations of one instruction and all that it calls; None if it calls code that is not in the module."""
    matmul: dict[str, float] = {}
    vector: dict[str, float] = {}
    known = _count(module, computation, each, matmul, vector)
    return Flops(matmul, vector) if known else None


def multiplies(module: Module, each: Instruction) -> bool:
    """Whether an instruction is a matmul, or fuses one."""
    if each.opcode == "fusion":
        bodies = (module[name] for name in each.called("calls"))
        return any(
            multiplies(module, inner)
            for body in bodies
            if not body.opcodes.isdisjoint(_MULTIPLYING)
            for inner in body.instructions
        )
    return each.opcode in ("convolution", "dot") or is_cublas(each)


def _count(
    module: Module, computation: Computation, each: Instruction, matmul: dict[str, float], vector: dict[str, float]
) -> bool:
    if each.opcode in ("fusion", "call", "async-start"):
        known = True
        for body in (module[name] for name in each.called("calls", "to_apply")):
            for inner in body.instructions:
                known &= _count(module, body, inner, matmul, vector)
        return known
    if each.opcode == "custom-call" and not is_cublas(each):
        return False
    if each.opcode in ("dot", "custom-call"):
        dtype = _wider_dtype(computation, each)
        matmul[dtype] = matmul.get(dtype, 0.0) + _matmul_flops(computation, each)
    elif each.opcode in _ELEMENTWISE and each.shapes[0].dtype in _VECTOR:
        _add(vector, each.shapes[0].dtype, math.prod(each.shapes[0].dims))
    elif each.opcode == "reduce":
        read = computation.by_name[each.operands[0]].shapes[0]
        if read.dtype in _VECTOR:
            _add(vector, read.dtype, math.prod(read.dims))
    return True


def _add(vector: dict[str, float], dtype: str, count: float) -> None:
    name = _DTYPES[dtype]
    vector[name] = vector.get(name, 0.0) + count


def _matmul_flops(computation: Computation, each: Instruction) -> float:
    """2 · elements of the result · contracted elements. A cuBLAS call's tuple may hold a workspace after the result."""
    if each.opcode == "dot":
        contracted = [
            int(axis) for axis in each.attributes.get("lhs_contracting_dims", "{}").strip("{}").split(",") if axis
        ]
    else:
        numbers = each.backend.get("gemm_backend_config", {}).get("dot_dimension_numbers", {})
        contracted = [int(axis) for axis in numbers.get("lhs_contracting_dimensions", [])]
    left = computation.by_name[each.operands[0]].shapes[0]
    return 2.0 * math.prod(each.shapes[0].dims) * math.prod(left.dims[axis] for axis in contracted)


def _wider_dtype(computation: Computation, each: Instruction) -> str:
    """The dtype of the wider operand, to which the narrower is converted."""
    present = {computation.by_name[name].shapes[0].dtype for name in each.operands[:2]}
    return next((name for dtype, name in _DTYPES.items() if dtype in present), "other")

"""Bytes that an instruction reads and writes, in HBM and in on-chip memory."""

from typing import Final, NamedTuple

from engines.compiled.hlo.opcodes import is_cublas
from engines.compiled.hlo.parser import Computation, Instruction, Module
from engines.compiled.hlo.shape import Shape

HBM: Final = 0
"""Memory space of HBM in a layout; others are on-chip memories, but for :data:`HOST`."""
HOST: Final = 5
"""Memory space of the host, behind a link of which no datasheet says how fast it is."""


class Transfer(NamedTuple):
    """Bytes read of an operand or written of a result, the bytes of the whole value, and the memory it lies in."""

    bytes: float
    whole_bytes: float
    space: int = HBM


def transfers(module: Module, computation: Computation, each: Instruction) -> tuple[Transfer, ...]:
    """The reads and writes of an instruction, in HBM and on the chip.

    An operand of which only a slice is read counts with that slice, and a result that updates an operand in place
    (``dynamic-update-slice``, ``scatter``) with the update: every layer passes the stacked weights and the cache on
    whole and touches its own part of them.
    """
    found: list[Transfer] = []
    for number, operand in enumerate(each.operands):
        source = computation.by_name.get(operand)
        if source is None or not source.shapes or source.is_tuple:
            continue
        shape = source.shapes[0]
        found.append(Transfer(_read_bytes(module, each, number, shape), shape.bytes, shape.space))
    results = each.shapes[:-1] if is_cublas(each) and each.is_tuple else each.shapes  # the last is a workspace
    written = _written_bytes(module, computation, each)
    if len(written) != len(results):
        written = [shape.bytes for shape in results]
    found += [Transfer(part, shape.bytes, shape.space) for part, shape in zip(written, results, strict=True)]
    return tuple(found)


def _read_bytes(module: Module, each: Instruction, number: int, shape: Shape) -> float:
    """Bytes of operand ``number`` that are read."""
    if each.opcode in ("dynamic-slice", "slice", "gather") and number == 0:
        return each.bytes
    if each.opcode == "dynamic-update-slice" and number == 0:
        return 0.0
    if each.opcode == "scatter" and number < len(each.shapes):
        return 0.0
    called = each.called("calls") if each.opcode == "fusion" else []
    if not called:
        return shape.bytes
    inner = module[called[0]]
    parameter = inner.parameters.get(number)
    if parameter is None:
        return shape.bytes
    read = sum(
        _read_bytes(module, user, place, parameter.shapes[0])
        if user.opcode in ("dynamic-slice", "slice", "gather", "dynamic-update-slice", "scatter", "fusion")
        else shape.bytes
        for user, place in _readers(module, inner, parameter.name)
    )
    return min(read, shape.bytes)


def _readers(module: Module, computation: Computation, name: str) -> list[tuple[Instruction, int]]:
    """The instructions that read a value, and as which operand; reads of a view (:func:`_is_view`) count too."""
    found: list[tuple[Instruction, int]] = []
    for user in computation.users.get(name, []):
        if _is_view(module, user):
            found += _readers(module, computation, user.name)
        else:
            found += [(user, place) for place, operand in enumerate(user.operands) if operand == name]
    return found


def _is_view(module: Module, each: Instruction) -> bool:
    """Whether an instruction inside a fusion only changes shape, layout or dtype, so that it moves no bytes itself."""
    if each.opcode in ("bitcast", "copy", "convert"):
        return True
    called = each.called("calls") if each.opcode == "fusion" and len(each.operands) == 1 else []
    return bool(called) and all(
        inner.opcode == "parameter" or _is_view(module, inner) for inner in module[called[0]].instructions
    )


def _written_bytes(module: Module, computation: Computation, each: Instruction) -> list[float]:
    """Bytes written of every part of the result; of an operand updated in place, those of the update."""
    if each.opcode == "dynamic-update-slice":
        update = computation.by_name.get(each.operands[1])
        return [each.bytes if update is None else update.bytes]
    if each.opcode == "scatter":
        return _scattered_bytes(module, computation, each)
    if each.opcode == "fusion":
        inner = module[each.called("calls")[0]]
        return _written_bytes(module, inner, inner.root)
    if each.opcode == "bitcast" and each.operands[0] in computation.by_name:
        return _written_bytes(module, computation, computation.by_name[each.operands[0]])
    if each.opcode == "tuple":
        parts = [computation.by_name[name] for name in each.operands]
        return [sum(_written_bytes(module, computation, part)) for part in parts]
    return [shape.bytes for shape in each.shapes]


def _scattered_bytes(module: Module, computation: Computation, each: Instruction) -> list[float]:
    """Bytes that a scatter writes into each of its operands, in place; one that adds to what is there reads it too."""
    updates = [computation.by_name.get(name) for name in each.operands[len(each.shapes) + 1 :]]
    combiner = each.called("to_apply")
    replaces = not combiner or module[combiner[0]].root.opcode in ("parameter", "tuple")
    return [
        shape.bytes if update is None else min(shape.bytes, update.bytes * (1 if replaces else 2))
        for shape, update in zip(each.shapes, updates, strict=True)
    ]

"""Collectives that run beside matmuls without an opcode of their own: XLA:TPU's asynchronous collective fusions.

The compiler splits such a collective into three fusions that each hold a copy of it, marked with
``async_collective_fusion_config``: one that calls ``AsyncCollectiveStart``, any number that compute something else
beside it, and one that calls ``AsyncCollectiveDone``. It is sent once, from the first to the last.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Final

from engines.compiled.hlo.opcodes import COLLECTIVES, CUSTOM_CALL, call_target
from engines.compiled.hlo.parser import Computation, Instruction, Module

START: Final = "AsyncCollectiveStart"
DONE: Final = "AsyncCollectiveDone"
MARK: Final = "async_collective_fusion_config"
_TELLING: Final = frozenset({CUSTOM_CALL, *COLLECTIVES})


class Stage(Enum):
    """Which part of an asynchronous collective a fusion is."""

    START = "start"
    BESIDE = "beside"
    DONE = "done"


def stage_of(module: Module, each: Instruction) -> Stage | None:
    """The part that a fusion is; None for any other instruction. One that does several things counts as the first."""
    if each.opcode != "fusion":
        return None
    bodies = [module[name] for name in each.called("calls")]
    if all(body.opcodes.isdisjoint(_TELLING) for body in bodies):
        return None
    inside = [inner for body in bodies for inner in body.instructions]
    targets = {call_target(inner) for inner in inside if inner.opcode == CUSTOM_CALL}
    if START in targets:
        return Stage.START
    if DONE in targets:
        return Stage.DONE
    return Stage.BESIDE if any(_is_marked(inner) for inner in inside) else None


def collective_inside(module: Module, each: Instruction) -> tuple[Computation, Instruction] | None:
    """The collective that a part holds, and the computation that it stands in."""
    for name in each.called("calls"):
        body = module[name]
        for inner in body.instructions if not body.opcodes.isdisjoint(COLLECTIVES) else ():
            if inner.opcode in COLLECTIVES:
                return body, inner
    return None


def start_of(module: Module, computation: Computation, done: Instruction) -> str:
    """Name of the start of the collective that ends here: of those its operands come from, the one with its channel.

    Empty where it started outside of the computation, as in an earlier turn of a loop.
    """
    wanted = _channel(module, done)
    for each in _before(module, computation, done):
        if stage_of(module, each) is Stage.START and _channel(module, each) == wanted:
            return each.name
    return ""


def _before(module: Module, computation: Computation, done: Instruction) -> Iterator[Instruction]:
    """The parts that an instruction's operands come from, the nearest first."""
    waiting, seen = list(done.operands), set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in seen or name not in computation.by_name:
            continue
        seen.add(name)
        each = computation.by_name[name]
        if each.opcode in ("get-tuple-element", "copy", "bitcast"):
            waiting += each.operands
        elif stage_of(module, each) is not None:
            yield each
            waiting += each.operands


def _channel(module: Module, each: Instruction) -> str:
    found = collective_inside(module, each)
    return "" if found is None else found[1].attributes.get("channel_id", "")


def _is_marked(each: Instruction) -> bool:
    return each.opcode in COLLECTIVES and MARK in each.attributes.get("backend_config", "")

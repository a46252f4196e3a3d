"""Collectives that fetch what is already there: the same operation on the same operand, twice or in every turn.

An operand is followed through what only moves, converts or reshapes it, to the value that it is. A loop's parameter is
the same value in every turn where the loop's body passes it on as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engines.compiled.hlo.async_fusion import Stage, stage_of
from engines.compiled.hlo.opcodes import COLLECTIVES
from engines.compiled.hlo.parser import Computation, Instruction, Module
from engines.compiled.hlo.schedule import Kind, Schedule
from engines.compiled.program.breakdown import runs_of

FETCHING: Final = frozenset({"all-gather", "collective-broadcast"})
"""Collectives whose result depends on nothing but the value that is fetched: a repeated one brings nothing new."""
_SAME_VALUE: Final = frozenset(
    {
        "bitcast", "copy", "convert", "reshape", "transpose", "copy-start", "copy-done", "opt-barrier",
        "bitcast-convert", "all-gather-done", "async-done",
    }
)  # fmt: skip
_DEEPEST: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """A value that is fetched several times: ``names`` are the HLO instructions, ``runs`` how often each runs.

    ``operand`` names the value. One fetch would do.
    """

    opcode: str
    operand: str
    names: tuple[str, ...]
    runs: tuple[int, ...]

    @property
    def in_vain(self) -> int:
        """Fetches beyond the first."""
        return sum(self.runs) - 1


def repeated(module: Module, schedule: Schedule) -> list[Repeated]:
    """The repeated fetches of a program, those with the most runs first."""
    runs = runs_of(schedule)
    outer = _bindings(module, schedule)
    found: dict[tuple[str, str, str, str], list[tuple[str, int]]] = {}
    for name, count in runs.items():
        computation = module[name]
        for each in computation.instructions:
            source = _fetch(module, each)
            if source is None or not each.operands or not count:
                continue
            origin, place = _origin(module, outer, computation, each.operands[0])
            groups = source.attributes.get("replica_groups", "")
            key = (source.opcode.removesuffix("-start"), groups, place, origin)
            once = runs.get(place, 1)  # how often the value itself is new
            found.setdefault(key, []).append((each.name, max(1, count // max(1, once))))
    several = [
        Repeated(
            opcode=opcode,
            operand=origin,
            names=tuple(name for name, _ in fetches),
            runs=tuple(count for _, count in fetches),
        )
        for (opcode, _, _, origin), fetches in found.items()
        if sum(count for _, count in fetches) > 1
    ]
    return sorted(several, key=lambda each: -each.in_vain)


def _fetch(module: Module, each: Instruction) -> Instruction | None:
    """The fetching collective that an instruction is or wraps."""
    base = each.opcode.removesuffix("-start")
    if base in FETCHING:
        return each
    if base not in ("async", "call") and each.opcode != "fusion":
        return None
    if stage_of(module, each) in (Stage.BESIDE, Stage.DONE):
        return None  # a copy of what its start sends
    for name in each.called("calls", "to_apply"):
        body = module.computations.get(name)
        inner = [one for one in body.instructions if one.opcode in COLLECTIVES] if body is not None else []
        if len(inner) == 1 and inner[0].opcode in FETCHING and len(each.operands) == 1:
            return inner[0]
    return None


Binding = tuple[Computation, Instruction]
"""The computation and the instruction that calls another one."""


def _bindings(module: Module, schedule: Schedule) -> dict[str, Binding]:
    """Body of a loop → its caller; of one that several call, none, since its parameters are then several values."""
    found: dict[str, Binding] = {}
    several: set[str] = set()
    for name, steps in schedule.computations.items():
        for step in steps:
            for called in step.called:
                if called in found or step.kind is not Kind.LOOP:
                    several.add(called)
                found[called] = (module[name], module[name].by_name[step.name])
    return {name: binding for name, binding in found.items() if name not in several}


def _origin(module: Module, outer: Mapping[str, Binding], computation: Computation, name: str) -> tuple[str, str]:
    """The name of the instruction that makes a value, and of the computation that it stands in."""
    path: list[int] = []
    for _ in range(_DEEPEST):
        each = computation.by_name.get(name)
        if each is None:
            break
        if each.opcode == "get-tuple-element":
            path.append(int(each.attributes.get("index", "0")))
            name = each.operands[0]
        elif each.opcode == "tuple" and path:
            name = each.operands[path.pop()]
        elif each.opcode in _SAME_VALUE and each.operands:
            if each.opcode == "copy-done" and path:
                path.clear()
            name = each.operands[0]
        elif each.opcode == "fusion" and len(each.operands) == 1 and _only_moves(module, each):
            name = each.operands[0]
        elif each.opcode == "parameter" and computation.name in outer and _passed_on(computation, path):
            computation, loop = outer[computation.name]
            name = loop.operands[0]
        elif each.opcode == "while" and path and _passed_on(module[each.called("body")[0]], path):
            name = each.operands[0]
        else:
            break
    return f"{name}{''.join(f'[{index}]' for index in reversed(path))}", computation.name


def _passed_on(body: Computation, path: Sequence[int]) -> bool:
    """Whether a loop's body returns an element of its parameter as it is."""
    root = body.root
    if not path or root.opcode != "tuple":
        return False
    each = body.by_name.get(root.operands[path[-1]])
    while each is not None and each.opcode in ("copy", "bitcast"):
        each = body.by_name.get(each.operands[0])
    if each is None or each.opcode != "get-tuple-element" or int(each.attributes.get("index", "-1")) != path[-1]:
        return False
    source = body.by_name.get(each.operands[0])
    return source is not None and source.opcode == "parameter"


def _only_moves(module: Module, fusion: Instruction) -> bool:
    """Whether a fusion only moves or converts its one operand."""
    inner = [one for name in fusion.called("calls") for one in module[name].instructions]
    return all(one.opcode in _SAME_VALUE or one.opcode == "parameter" for one in inner)

"""The instructions of a scheduled module, classified: computation, collective, asynchronous pair, loop, call."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from engines.compiled.hlo.async_fusion import Stage, stage_of, start_of
from engines.compiled.hlo.collective import Collective, between_slices, collective_of, sent_beside
from engines.compiled.hlo.flops import Flops, flops_of, multiplies
from engines.compiled.hlo.hbm_traffic import HBM, HOST, Transfer, transfers
from engines.compiled.hlo.megascale import joins_slices, send_of
from engines.compiled.hlo.opcodes import CUSTOM_CALL, MOVES, WORK, is_free, is_known, label_of
from engines.compiled.hlo.parser import Computation, Instruction, Module
from engines.compiled.hlo.ragged_dot import ragged_dot_cost
from engines.compiled.hlo.source import operation_of
from engines.compiled.hlo.trip_count import UnknownTripCount, trip_count

UPDATE: Final = "-update"
"""End of the opcodes between an asynchronous start and its done: ``async-update``, or ``call-update`` of a call."""
_SCALAR_BYTES: Final = 8.0


class Kind(Enum):
    """What an instruction does, as far as its time is concerned."""

    FREE = "free"
    COMPUTE = "compute"
    COLLECTIVE = "collective"
    START = "start"
    DONE = "done"
    LOOP = "loop"
    CALL = "call"
    BRANCH = "branch"


@dataclass(frozen=True, slots=True)
class StatedCost:
    """What a kernel's author says that it takes (``cost_estimate`` of a Pallas call): operations and bytes of HBM."""

    flops: float
    bytes: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """One classified instruction. ``hbm_bytes`` is its HBM traffic, which ``transfers`` lists per operand and result.

    ``label`` is its opcode, of a custom call with the target. One that is not ``known`` has no rule in
    :mod:`engines.compiled.hlo.opcodes`, so that its time is only bounded. ``moved_bytes`` counts the bytes that it
    reads and writes in any memory; those of an asynchronous one once. ``with_host`` marks a transfer with the host's
    memory, whose link is no faster than HBM.

    ``matmul`` marks a matrix multiplication, also inside a fusion. ``flops`` counts the arithmetic, without
    convolutions; None if the instruction calls code that is not in the module. ``trips`` is a loop's trip count, the
    most where only a range is known, and ``least_trips`` the least. ``stated`` is the cost that a kernel states itself,
    ``operation`` of a conditional JAX's path to it.
    """

    name: str
    opcode: str
    kind: Kind
    label: str = ""
    known: bool = True
    cycles: int | None = None
    hbm_bytes: float = 0.0
    transfers: tuple[Transfer, ...] = ()
    moved_bytes: float = 0.0
    collective: Collective | None = None
    starts: str | None = None
    called: tuple[str, ...] = ()
    trips: int = 1
    least_trips: int = 1
    matmul: bool = False
    flops: Flops | None = None
    stated: StatedCost | None = None
    with_host: bool = False
    operation: str = ""


@dataclass(frozen=True)
class Schedule:
    """A classified module. ``unknown`` counts the instructions that are not known, by label; ``assumed`` names the
    loops whose trip count was given and does not follow from the program.
    """

    entry: str
    computations: Mapping[str, tuple[Step, ...]]
    unknown: Counter[str] = field(default_factory=Counter)
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trips:
    """How often a loop runs whose trip count the program does not tell."""

    least: int
    most: int


def read_schedule(module: Module, unknown_trips: Trips | None = None) -> Schedule:
    """Classify every instruction that the entry computation reaches, through loops and calls.

    Raises:
        UnknownTripCount: a loop's trip count does not follow from its condition, and ``unknown_trips`` is None.
    """
    assumed: list[str] = []
    computations: dict[str, tuple[Step, ...]] = {}
    unknown: Counter[str] = Counter()
    waiting = [module.entry]
    while waiting:
        name = waiting.pop()
        if name in computations:
            continue
        computation = module[name]
        steps = tuple(
            _loop(module, computation, each, unknown_trips, assumed)
            if each.opcode == "while"
            else _classified(module, computation, each)
            for each in computation.instructions
        )
        computations[name] = steps
        for step in steps:
            waiting += step.called
            if not step.known:
                unknown[step.label] += 1
    return Schedule(module.entry, computations, unknown, tuple(assumed))


def _loop(
    module: Module, computation: Computation, each: Instruction, unknown_trips: Trips | None, assumed: list[str]
) -> Step:
    try:
        most = least = trip_count(module, computation, each)
    except UnknownTripCount:
        if unknown_trips is None:
            raise
        least, most = unknown_trips.least, unknown_trips.most
        assumed.append(each.name)
    body = tuple(each.called("body"))
    return Step(name=each.name, opcode=each.opcode, kind=Kind.LOOP, called=body, trips=most, least_trips=least)


def _classified(module: Module, computation: Computation, each: Instruction) -> Step:
    opcode = each.opcode
    if is_free(each):
        return Step(name=each.name, opcode=opcode, kind=Kind.FREE)
    if opcode == "call":
        return Step(name=each.name, opcode=opcode, kind=Kind.CALL, called=tuple(each.called("to_apply")))
    if opcode == "conditional":
        branches = each.called("branch_computations", "true_computation", "false_computation")
        return Step(
            name=each.name, opcode=opcode, kind=Kind.BRANCH, called=tuple(branches), operation=operation_of(each)
        )
    if joins_slices(each):
        return _between_slices(computation, each)
    if opcode.endswith(("-done", UPDATE)):
        return Step(name=each.name, opcode=opcode, kind=Kind.DONE, starts=each.operands[0])
    stage = stage_of(module, each)
    if stage is Stage.DONE:
        return Step(name=each.name, opcode=opcode, kind=Kind.DONE, starts=start_of(module, computation, each))
    if stage is Stage.START:
        sent = sent_beside(module, each)
        return Step(name=each.name, opcode=opcode, kind=Kind.START, label=label_of(each), collective=sent)
    collective = None if stage is Stage.BESIDE else collective_of(module, computation, each)
    touched = transfers(module, computation, each)
    moves = tuple(move for move in touched if move.space == HBM)
    bytes_ = sum(move.bytes for move in moves)
    label = label_of(each)
    if opcode.endswith("-start") and not _is_synchronous(each):
        inner = _async_inner(module, each)
        base = inner.opcode if inner is not None else opcode.removesuffix("-start")
        # An asynchronous call runs on a core of its own (a SparseCore that copies): its time is that of its bytes.
        known = collective is not None or base in MOVES or base in WORK or opcode == "call-start"
        # Its result is (its operand, its result, …); of a dynamic slice the operands include the start indices.
        second = len(each.operands) if base == "dynamic-slice" else 1
        ends = (each.shapes[0], each.shapes[second]) if len(each.shapes) > second else ()
        moved = min(shape.bytes for shape in ends) if ends else each.bytes
        return Step(
            name=each.name,
            opcode=opcode,
            kind=Kind.START,
            label=label,
            known=known,
            cycles=inner.cycles if inner is not None and collective is None else None,
            with_host=collective is None and _touches_host(computation, each),
            hbm_bytes=0.0 if collective else moved,
            moved_bytes=moved,
            collective=collective,
        )
    if collective is not None:
        bytes_ = 0.0 if opcode.endswith("-start") else bytes_  # as for any other start
        return Step(
            name=each.name, opcode=opcode, kind=Kind.COLLECTIVE, label=label, hbm_bytes=bytes_, collective=collective
        )
    moved = sum(move.bytes for move in touched)
    known = is_known(each)
    scalar = known and each.cycles is None and moved <= _SCALAR_BYTES * (1 + len(each.operands))
    return Step(
        name=each.name,
        opcode=opcode,
        kind=Kind.FREE if scalar else Kind.COMPUTE,
        label=label,
        known=known,
        cycles=each.cycles,
        hbm_bytes=bytes_,
        transfers=moves,
        moved_bytes=moved,
        matmul=multiplies(module, each),
        flops=flops_of(module, computation, each),
        stated=_stated(computation, each),
        with_host=_touches_host(computation, each),
    )


def _between_slices(computation: Computation, each: Instruction) -> Step:
    """Part of a collective between slices, which runs from its send to the end of its recv."""
    if each.opcode == "send":
        sent = between_slices(computation, each)
        return Step(name=each.name, opcode=each.opcode, kind=Kind.START, label=sent.opcode, collective=sent)
    if each.opcode == "recv-done":
        return Step(name=each.name, opcode=each.opcode, kind=Kind.DONE, starts=send_of(computation, each))
    return Step(name=each.name, opcode=each.opcode, kind=Kind.FREE)


def _touches_host(computation: Computation, each: Instruction) -> bool:
    read = (computation.by_name[name] for name in each.operands if name in computation.by_name)
    arrays = (shape for source in read if not source.is_tuple for shape in source.shapes)
    return any(shape.space == HOST for shape in (*each.shapes, *arrays))


def _stated(computation: Computation, each: Instruction) -> StatedCost | None:
    if each.opcode != CUSTOM_CALL:
        return None
    ragged = ragged_dot_cost(computation, each)
    if ragged is not None:
        return StatedCost(*ragged)
    stated = each.backend.get("custom_call_config", {}).get("cost_estimate", {})
    flops, moved = float(stated.get("flops", 0)), float(stated.get("bytes_accessed", 0))
    return StatedCost(flops, moved) if flops > 0 or moved > 0 else None


def _is_synchronous(each: Instruction) -> bool:
    """Whether a start is marked as synchronous: its done follows immediately."""
    return bool(each.backend.get("collective_backend_config", {}).get("is_sync", False))


def _async_inner(module: Module, each: Instruction) -> Instruction | None:
    """The instruction that a generic ``async-start`` wraps."""
    called = each.called("calls", "to_apply")
    return module[called[0]].root if called else None

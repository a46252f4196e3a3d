"""The instructions of a scheduled module, classified: computation, collective, asynchronous pair, loop, call."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from engines.compiled.hlo.async_fusion import Stage, collective_inside, stage_of, start_of
from engines.compiled.hlo.flops import Flops, flops_of, multiplies
from engines.compiled.hlo.hbm_traffic import HBM, HOST, Transfer, transfers
from engines.compiled.hlo.opcodes import COLLECTIVES, CUSTOM_CALL, MOVES, WORK, is_free, is_known, label_of
from engines.compiled.hlo.parser import Computation, Instruction, Module
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


@dataclass(frozen=True, kw_only=True)
class Collective:
    """One collective. Of one chip's operand and result, ``shard_bytes`` is the smaller and ``whole_bytes`` the larger.

    ``colors`` is the number of directed links that the compiler's ring strategy uses at once, None if it states none.
    """

    opcode: str
    whole_bytes: float
    shard_bytes: float
    groups: str
    pairs: str
    emitter: str
    strategy: str
    colors: int | None


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
    most where only a range is known, and ``least_trips`` the least. ``stated`` is the cost that a kernel states itself.
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
        return Step(name=each.name, opcode=opcode, kind=Kind.BRANCH, called=tuple(branches))
    if opcode.endswith(("-done", UPDATE)):
        return Step(name=each.name, opcode=opcode, kind=Kind.DONE, starts=each.operands[0])
    stage = stage_of(module, each)
    if stage is Stage.DONE:
        return Step(name=each.name, opcode=opcode, kind=Kind.DONE, starts=start_of(module, computation, each))
    if stage is Stage.START:
        sent = _sent_beside(module, each)
        return Step(name=each.name, opcode=opcode, kind=Kind.START, label=label_of(each), collective=sent)
    collective = None if stage is Stage.BESIDE else _collective(module, computation, each)
    touched = transfers(module, computation, each)
    moves = tuple(move for move in touched if move.space == HBM)
    bytes_ = sum(move.bytes for move in moves)
    label = label_of(each)
    if opcode.endswith("-start") and not _is_synchronous(each):
        inner = _async_inner(module, each)
        base = inner.opcode if inner is not None else opcode.removesuffix("-start")
        # An asynchronous call runs on a core of its own (a SparseCore that copies): its time is that of its bytes.
        known = collective is not None or base in MOVES or base in WORK or opcode == "call-start"
        moved = min(shape.bytes for shape in each.shapes[:2]) if len(each.shapes) > 1 else each.bytes
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
        stated=_stated(each),
        with_host=_touches_host(computation, each),
    )


def _touches_host(computation: Computation, each: Instruction) -> bool:
    read = (computation.by_name[name] for name in each.operands if name in computation.by_name)
    arrays = (shape for source in read if not source.is_tuple for shape in source.shapes)
    return any(shape.space == HOST for shape in (*each.shapes, *arrays))


def _stated(each: Instruction) -> StatedCost | None:
    if each.opcode != CUSTOM_CALL:
        return None
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


def _collective(module: Module, computation: Computation, each: Instruction) -> Collective | None:
    """The collective that an instruction is or that the computation it calls contains; None without one."""
    source, inside = each, False
    base = each.opcode.removesuffix("-start")
    if base not in COLLECTIVES:
        found = _inner_collectives(module, each) if base in ("fusion", "async", "call") else []
        if not found:
            return None
        source, inside = found[0], True
        base = source.opcode
    algorithm = each.backend.get("collective_algorithm_config") or source.backend.get("collective_algorithm_config", {})
    emitter = str(algorithm.get("emitter", ""))
    result = sum(shape.bytes for shape in source.shapes) if inside else _result_bytes(each)
    if inside and each.opcode == "fusion":
        given = source.bytes
        if "Scatter" in emitter and base == "all-reduce":
            base, result = "reduce-scatter", each.bytes
    else:
        given = sum(computation.by_name[operand].bytes for operand in each.operands if operand in computation.by_name)
        given = given or source.bytes
    whole, shard = max(result, given), min(result, given)
    debug = str(algorithm.get("debug", ""))
    return Collective(
        opcode=base,
        whole_bytes=whole,
        shard_bytes=shard,
        groups=_groups(source),
        pairs=source.attributes.get("source_target_pairs", ""),
        emitter=emitter,
        strategy=str(algorithm.get("strategy", "")),
        colors=_number_after(debug, "colors:"),
    )


def _sent_beside(module: Module, each: Instruction) -> Collective | None:
    """The collective that an asynchronous fusion starts."""
    found = collective_inside(module, each)
    if found is None:
        return None
    inside, source = found
    given = sum(inside.by_name[name].bytes for name in source.operands if name in inside.by_name)
    alone = _collective(module, inside, source)
    return (
        None
        if alone is None
        else replace(alone, whole_bytes=max(source.bytes, given), shard_bytes=min(source.bytes, given))
    )


def _inner_collectives(module: Module, each: Instruction) -> list[Instruction]:
    """The collectives inside a fusion, an async pair or a call to another core."""
    keys = ("calls",) if each.opcode == "fusion" else ("calls", "to_apply")
    found: list[Instruction] = []
    for name in each.called(*keys):
        for inner in module[name].instructions:
            if inner.opcode in COLLECTIVES:
                found.append(inner)
            elif inner.opcode in ("fusion", "call"):
                found += _inner_collectives(module, inner)
    return found


def _groups(source: Instruction) -> str:
    """Replica groups as written; a named mesh adds its device ids after a comma."""
    devices = source.attributes.get("device_ids")
    groups = source.attributes.get("replica_groups", "")
    return groups if devices is None else f"{groups}, device_ids={devices}"


def _result_bytes(each: Instruction) -> float:
    """Bytes of a collective's results; a start's tuple may hold its operands before them."""
    count = len(each.operands)
    if each.opcode.endswith("-start") and each.is_tuple and len(each.shapes) >= 2 * count:
        return sum(shape.bytes for shape in each.shapes[count : 2 * count])
    return each.bytes


def _number_after(text: str, word: str) -> int | None:
    _, found, rest = text.partition(word)
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return int(digits) if found and digits else None

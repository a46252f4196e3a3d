"""Types the instructions of a scheduled module: what each does to the chip, and how long its loops run."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from engines.compiled.hlo import Computation, Instruction, Module, Shape, UnreadableHlo

HBM: Final = 0
"""Memory space of the chip's main memory; others are on the chip."""

COLLECTIVES: Final = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast",
    "ragged-all-to-all",
)  # fmt: skip
MOVES: Final = ("copy", "slice", "dynamic-slice", "dynamic-update-slice")
FREE: Final = frozenset(
    {
        "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "partition-id", "replica-id", "after-all",
        "opt-barrier", "add-dependency", "domain", "get-dimension-size",
    }
)  # fmt: skip
"""What only names or addresses values."""
WORK: Final = frozenset(
    {
        "fusion", "convolution", "dot", "copy", "reduce", "broadcast", "reshape", "transpose", "slice", "dynamic-slice",
        "dynamic-update-slice", "concatenate", "pad", "iota", "convert", "select", "compare", "add", "subtract",
        "multiply", "divide", "maximum", "minimum", "negate", "exponential", "exponential-minus-one", "log", "rsqrt",
        "sqrt", "tanh", "power", "and", "or", "not", "xor", "clamp", "sine", "cosine", "gather", "scatter", "sort",
        "reduce-window", "shift-left", "shift-right-logical", "shift-right-arithmetic", "remainder", "reverse", "map",
        "abs", "sign", "floor", "ceil", "logistic", "log-plus-one", "erf", "custom-call", "rng-bit-generator",
        "bitcast-convert", "round-nearest-even", "round-nearest-afz", "is-finite", "copy-fusion", "select-and-scatter",
    }
)  # fmt: skip
_SCALAR_BYTES: Final = 8.0


class Kind(Enum):
    """What an instruction asks of the chip."""

    FREE = "free"
    COMPUTE = "compute"
    COLLECTIVE = "collective"
    START = "start"
    DONE = "done"
    LOOP = "loop"
    CALL = "call"
    BRANCH = "branch"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Collective:
    """One exchange between chips. ``bytes`` is what a chip holds before it (gather) or of the whole (the others).

    ``shard_bytes`` and ``whole_bytes`` are the smaller and the larger side of one chip. ``colors`` is the number of
    directed links that the compiler's ring strategy drives at once, None where it names none.
    """

    opcode: str
    whole_bytes: float
    shard_bytes: float
    groups: str
    pairs: str
    emitter: str
    strategy: str
    colors: int | None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One typed instruction. ``hbm_bytes`` is what it reads from and writes to main memory."""

    name: str
    opcode: str
    kind: Kind
    cycles: int | None = None
    hbm_bytes: float = 0.0
    moved_bytes: float = 0.0
    collective: Collective | None = None
    starts: str | None = None
    called: tuple[str, ...] = ()
    trips: int = 1


@dataclass(frozen=True)
class Schedule:
    """A module, typed. ``unknown`` counts opcodes that this reader has no rule for."""

    entry: str
    computations: Mapping[str, tuple[Step, ...]]
    unknown: Counter[str] = field(default_factory=Counter)


def read_schedule(module: Module) -> Schedule:
    """Type every instruction that the entry computation reaches, loops and calls included.

    Raises:
        UnreadableHlo: a loop's trip count cannot be told from its condition.
    """
    computations: dict[str, tuple[Step, ...]] = {}
    unknown: Counter[str] = Counter()
    waiting = [module.entry]
    while waiting:
        name = waiting.pop()
        if name in computations:
            continue
        computation = module[name]
        steps = tuple(_typed(module, computation, each) for each in computation.instructions)
        computations[name] = steps
        for step in steps:
            waiting += step.called
            if step.kind is Kind.UNKNOWN:
                unknown[step.opcode] += 1
    return Schedule(module.entry, computations, unknown)


def _typed(module: Module, computation: Computation, each: Instruction) -> Step:
    opcode = each.opcode
    if opcode in FREE:
        return Step(name=each.name, opcode=opcode, kind=Kind.FREE)
    if opcode == "while":
        trips = trip_count(module, computation, each)
        return Step(name=each.name, opcode=opcode, kind=Kind.LOOP, called=tuple(each.called("body")), trips=trips)
    if opcode == "call":
        return Step(name=each.name, opcode=opcode, kind=Kind.CALL, called=tuple(each.called("to_apply")))
    if opcode == "conditional":
        branches = each.called("branch_computations", "true_computation", "false_computation")
        return Step(name=each.name, opcode=opcode, kind=Kind.BRANCH, called=tuple(branches))
    if opcode.endswith("-done") or opcode == "async-update":
        return Step(name=each.name, opcode=opcode, kind=Kind.DONE, starts=each.operands[0])
    collective = _collective(module, computation, each)
    bytes_ = hbm_bytes(module, computation, each)
    moved = each.bytes + sum(
        computation.by_name[operand].bytes for operand in each.operands if operand in computation.by_name
    )
    if opcode.endswith("-start"):
        inner = _async_inner(module, each)
        base = inner.opcode if inner is not None else opcode.removesuffix("-start")
        known = collective is not None or base in MOVES or base in WORK
        moved = min(shape.bytes for shape in each.shapes[:2]) if len(each.shapes) > 1 else each.bytes
        return Step(
            name=each.name,
            opcode=opcode,
            kind=Kind.START if known else Kind.UNKNOWN,
            cycles=inner.cycles if inner is not None and collective is None else None,
            hbm_bytes=0.0 if collective else moved,
            moved_bytes=moved,
            collective=collective,
        )
    if collective is not None:
        return Step(name=each.name, opcode=opcode, kind=Kind.COLLECTIVE, hbm_bytes=bytes_, collective=collective)
    if opcode not in WORK:
        return Step(name=each.name, opcode=opcode, kind=Kind.UNKNOWN)
    scalar = each.cycles is None and each.bytes <= _SCALAR_BYTES
    return Step(
        name=each.name,
        opcode=opcode,
        kind=Kind.FREE if scalar else Kind.COMPUTE,
        cycles=each.cycles,
        hbm_bytes=bytes_,
        moved_bytes=moved,
    )


def _async_inner(module: Module, each: Instruction) -> Instruction | None:
    """What a generic ``async-start`` wraps."""
    called = each.called("calls")
    return module[called[0]].root if called else None


def _collective(module: Module, computation: Computation, each: Instruction) -> Collective | None:
    """The exchange that this is, itself or inside the computation that it calls; None where there is none."""
    source, inside = each, False
    base = each.opcode.removesuffix("-start")
    if base not in COLLECTIVES:
        if base not in ("fusion", "async"):
            return None
        found = [
            inner for name in each.called("calls") for inner in module[name].instructions if inner.opcode in COLLECTIVES
        ]
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
        groups=source.attributes.get("replica_groups", ""),
        pairs=source.attributes.get("source_target_pairs", ""),
        emitter=emitter,
        strategy=str(algorithm.get("strategy", "")),
        colors=_number_after(debug, "colors:"),
    )


def _result_bytes(each: Instruction) -> float:
    """Bytes of a collective's result; that of a start stands second in its tuple."""
    if each.opcode.endswith("-start") and each.is_tuple and len(each.shapes) > 1:
        return each.shapes[1].bytes
    return each.bytes


def _number_after(text: str, word: str) -> int | None:
    _, found, rest = text.partition(word)
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return int(digits) if found and digits else None


def hbm_bytes(module: Module, computation: Computation, each: Instruction) -> float:
    """Bytes that an instruction moves to and from main memory.

    An operand of which only a slice is read counts by that slice, and a result that updates an operand in place by the
    update: the stacked weights and the cache pass through every layer whole and are touched a layer at a time.
    """
    total = 0.0
    updates = _updated_bytes(module, computation, each)
    for number, operand in enumerate(each.operands):
        source = computation.by_name.get(operand)
        if source is None or not source.shapes or source.is_tuple:
            continue
        if source.shapes[0].space == HBM:
            total += _read_bytes(module, each, number, source.shapes[0])
    if updates is not None:
        return total + updates
    return total + sum(shape.bytes for shape in each.shapes if shape.space == HBM)


def _read_bytes(module: Module, each: Instruction, number: int, shape: Shape) -> float:
    """Bytes of operand ``number`` that are read."""
    if each.opcode in ("dynamic-slice", "slice", "gather") and number == 0:
        return each.bytes
    if each.opcode == "dynamic-update-slice" and number == 0:
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
        if user.opcode in ("dynamic-slice", "slice", "gather", "dynamic-update-slice", "fusion")
        else shape.bytes
        for user, place in _readers(inner, parameter.name)
    )
    return min(read, shape.bytes)


def _readers(computation: Computation, name: str) -> list[tuple[Instruction, int]]:
    """Who reads a value, and as which operand; a bitcast is the value itself."""
    found: list[tuple[Instruction, int]] = []
    for user in computation.users.get(name, []):
        if user.opcode == "bitcast":
            found += _readers(computation, user.name)
        else:
            found += [(user, place) for place, operand in enumerate(user.operands) if operand == name]
    return found


def _updated_bytes(module: Module, computation: Computation, each: Instruction) -> float | None:
    """Bytes of the update where the result is an operand changed in place; else None."""
    if each.opcode == "dynamic-update-slice":
        update = computation.by_name.get(each.operands[1])
        return update.bytes if update is not None else None
    if each.opcode == "fusion":
        inner = module[each.called("calls")[0]]
        root = inner.root
        if root.opcode in ("dynamic-update-slice", "fusion"):
            return _updated_bytes(module, inner, root)
    return None


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int:
    """How often a ``while`` runs, from its condition ``counter < bound``, the counter's start and its step.

    Raises:
        UnreadableHlo: the condition is of another kind, or a value of it is not known when compiled.
    """
    known = loop.backend.get("known_trip_count", {}).get("n")
    if known is not None:
        return int(known)
    condition, body = module[loop.called("condition")[0]], module[loop.called("body")[0]]
    first = computation.by_name[loop.operands[0]]

    def initial(index: int) -> int | None:
        if first.opcode != "tuple":
            return None
        return _constant(computation, first.operands[index], lambda _: None)

    root = condition.root
    while root.opcode in ("bitcast", "copy"):
        root = condition.by_name[root.operands[0]]
    if root.opcode == "fusion":
        condition, root = _inlined(module, condition, root)
    counter = _element(condition, root.operands[0]) if root.opcode == "compare" else None
    if counter is not None and root.attributes.get("direction") == "LT":
        bound = _constant(condition, root.operands[1], initial)
        start = initial(counter)
        moved = _constant(body, body.root.operands[counter], lambda index: 0 if index == counter else initial(index))
        if bound is not None and start is not None and moved:
            return max(0, -((start - bound) // moved))
    raise UnreadableHlo(f"loop {loop.name}: its trip count cannot be told from its condition {condition.name}")


def _inlined(module: Module, outer: Computation, fusion: Instruction) -> tuple[Computation, Instruction]:
    """A condition that is one fusion, with its parameters replaced by what the outer computation passes."""
    inner = module[fusion.called("calls")[0]]
    named = {inner.parameters[number].name: name for number, name in enumerate(fusion.operands)}
    root = inner.root
    operands = tuple(named.get(each, each) for each in root.operands)
    replaced = Instruction(
        name=root.name,
        opcode=root.opcode,
        shapes=root.shapes,
        is_tuple=False,
        operands=operands,
        literal="",
        attributes=root.attributes,
        is_root=True,
    )
    rest = tuple(each for each in inner.instructions if each.opcode == "constant")
    return Computation(outer.name, outer.instructions + rest), replaced


def _element(computation: Computation, name: str) -> int | None:
    """The index of the loop's tuple that ``name`` is, through copies."""
    each = computation.by_name.get(name)
    while each is not None and each.opcode in ("copy", "bitcast", "convert"):
        each = computation.by_name.get(each.operands[0])
    if each is None or each.opcode != "get-tuple-element":
        return None
    return int(each.attributes["index"])


def _constant(computation: Computation, name: str, element: Callable[[int], int | None]) -> int | None:
    """The value of a whole number that is known when compiled; ``element`` answers for the loop's tuple."""
    each = computation.by_name.get(name)
    if each is None:
        return None
    if each.opcode == "constant":
        return int(each.literal) if each.literal.lstrip("-").isdigit() else None
    if each.opcode in ("copy", "bitcast", "convert"):
        return _constant(computation, each.operands[0], element)
    if each.opcode == "get-tuple-element":
        source = computation.by_name[each.operands[0]]
        return element(int(each.attributes["index"])) if source.opcode == "parameter" else None
    if each.opcode in ("add", "subtract", "multiply"):
        left, right = (_constant(computation, operand, element) for operand in each.operands)
        if left is None or right is None:
            return None
        return {"add": left + right, "subtract": left - right, "multiply": left * right}[each.opcode]
    return None

"""The collective that an instruction is or contains: kind, bytes, groups and the strategy that the compiler chose."""

from dataclasses import dataclass, replace

from engines.compiled.hlo.async_fusion import collective_inside
from engines.compiled.hlo.opcodes import COLLECTIVES
from engines.compiled.hlo.parser import Computation, Instruction, Module


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


def collective_of(module: Module, computation: Computation, each: Instruction) -> Collective | None:
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
    if base == "ragged-all-to-all":
        result = given = _ragged_bytes(module, source if inside else each, result)
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


def _ragged_bytes(module: Module, each: Instruction, result: float) -> float:
    """Bytes that a chip sends with balanced routing: the smaller of what it sends from and what it receives into.

    One of them holds as many rows as there are, on the way to experts what is sent and on the way back what arrives;
    the other has room for all that may come.
    """
    homes = (place for place in module.computations.values() if place.by_name.get(each.name) is each)
    held = [place.by_name[each.operands[0]].bytes for place in homes if each.operands[0] in place.by_name]
    return min(held[0], result) if held else result


def sent_beside(module: Module, each: Instruction) -> Collective | None:
    """The collective that an asynchronous fusion starts."""
    found = collective_inside(module, each)
    if found is None:
        return None
    inside, source = found
    given = sum(inside.by_name[name].bytes for name in source.operands if name in inside.by_name)
    alone = collective_of(module, inside, source)
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

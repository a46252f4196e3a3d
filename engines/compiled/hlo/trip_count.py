"""Trip counts of the loops of a compiled program."""

from collections.abc import Callable

from engines.compiled.hlo.parser import Computation, Instruction, Module, UnreadableHlo
from engines.core.routing import TURNS


class UnknownTripCount(UnreadableHlo):
    """A loop's trip count does not follow from its condition; ``loop`` is its name."""

    def __init__(self, loop: str, condition: str) -> None:
        super().__init__(f"loop {loop}: its trip count does not follow from its condition {condition}")
        self.loop, self.condition = loop, condition

    def __reduce__(self) -> tuple[type["UnknownTripCount"], tuple[str, str]]:
        return (type(self), (self.loop, self.condition))


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int:
    """The trip count of a ``while``, from its condition ``counter < bound``, the counter's initial value and its step.

    Of a loop over experts it depends on their tokens: then it is what the program states of balanced routing.

    Raises:
        UnknownTripCount: the condition has another form, or one of its values is not a compile-time constant.
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
        step = _constant(body, body.root.operands[counter], lambda index: 0 if index == counter else initial(index))
        if bound is not None and start is not None and step:
            return max(0, -((start - bound) // step))
    stated = TURNS.search(loop.attributes.get("metadata", ""))
    if stated is not None:
        return int(stated[1])
    raise UnknownTripCount(loop.name, condition.name)


def _inlined(module: Module, outer: Computation, fusion: Instruction) -> tuple[Computation, Instruction]:
    """A condition that is one fusion, with its parameters replaced by the outer computation's operands."""
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
        rest=root.rest,
        is_root=True,
    )
    rest = tuple(each for each in inner.instructions if each.opcode == "constant")
    return Computation(outer.name, outer.instructions + rest), replaced


def _element(computation: Computation, name: str) -> int | None:
    """The index of ``name`` in the loop's tuple, looking through copies."""
    each = computation.by_name.get(name)
    while each is not None and each.opcode in ("copy", "bitcast", "convert"):
        each = computation.by_name.get(each.operands[0])
    if each is None or each.opcode != "get-tuple-element":
        return None
    return int(each.attributes["index"])


def _constant(computation: Computation, name: str, element: Callable[[int], int | None]) -> int | None:
    """The value of a compile-time integer, else None; ``element`` gives the values of the loop's tuple."""
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

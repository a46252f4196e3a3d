"""Reads the text of a scheduled HLO module: computations of instructions in issue order.

The grammar is that of ``HloModule::ToString`` as ``compiled.as_text()`` prints it. An instruction stands on one line::

    [ROOT ]%name = SHAPE opcode(OPERANDS), key=value, key={...}, backend_config={JSON}

A train step has a million of them. So one expression reads the plain ones, :func:`parse_instruction` the others bracket
by bracket; attributes are taken apart when they are asked for; and equal shapes are one object.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from engines.compiled.hlo.attributes import COMMENT, balanced, closing, depth_of, parse_attributes, split
from engines.compiled.hlo.shape import Shape, shapes_of
from engines.core.errors import ShardbenchError

_HEADER: Final = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION: Final = re.compile(r"^(ROOT )?%?([\w.\-]+) = ")
_BEGINS: Final = ("  %", "  ROOT %")
"""How a line begins that continues no other."""
_CALLED: Final = {
    key: re.compile(rf"(?:^|, ){key}=%?([\w.\-]+)(?=,|$)") for key in ("calls", "to_apply", "body", "condition")
}
"""Attributes that name one computation."""
_CYCLES: Final = re.compile(r'"estimated_cycles":"(\d+)"')
_NOT_READ: Final = -1
_BACKEND: Final = "backend_config={"
_JSON: Final = json.JSONDecoder()
_PARTITIONS: Final = re.compile(r"\bnum_partitions=(\d+)")
_OPCODE: Final = re.compile(r"([a-z][a-z0-9\-]*)\(")
_OPERAND: Final = re.compile(r"%([\w.\-]+)")
_PLAIN: Final = re.compile(
    r"\s*(ROOT )?%?([\w.\-]+) = "
    r"(\w+\[[^\]]*+\](?:\{[^}]*+\})?|\((?:[^()]++|\((?:[^()]++|\([^()]*+\))*+\))*+\)) "  # an array, or a tuple of them
    r"([a-z][a-z0-9\-]*)\(([^()\"]*+)\)(?:, (.*))?$"
)
"""An instruction without brackets or quotes among its operands: root, name, shape, opcode, operands, attributes."""


class UnreadableHlo(ShardbenchError):
    """The text is not a scheduled HLO module that this parser can read."""


@dataclass(slots=True, eq=False)
class Instruction:
    """One line. ``shapes`` are the leaves of its result; ``operands`` are names; ``rest`` is its attributes' text."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    is_tuple: bool
    operands: tuple[str, ...]
    literal: str
    rest: str
    is_root: bool = False
    _attributes: Mapping[str, str] | None = field(default=None, init=False, repr=False)
    _backend: dict[str, Any] | None = field(default=None, init=False, repr=False)
    _cycles: int | None = field(default=_NOT_READ, init=False, repr=False)
    _called: dict[tuple[str, ...], Sequence[str]] | None = field(default=None, init=False, repr=False)

    @property
    def attributes(self) -> Mapping[str, str]:
        """Name → value, as written."""
        if self._attributes is None:
            self._attributes = parse_attributes(self.rest)
        return self._attributes

    @property
    def backend(self) -> dict[str, Any]:
        """The backend's notes: window, cycles, collective algorithm."""
        if self._backend is None:
            at = self.rest.rfind(_BACKEND)
            self._backend = _JSON.raw_decode(self.rest, at + len(_BACKEND) - 1)[0] if at >= 0 else {}
        return self._backend

    @property
    def cycles(self) -> int | None:
        """The compiler's own estimate, in cycles of the core clock."""
        if self._cycles == _NOT_READ:
            stated = _CYCLES.search(self.rest, max(0, self.rest.rfind(_BACKEND)))
            self._cycles = int(stated[1]) if stated is not None else None
        return self._cycles

    @property
    def bytes(self) -> float:
        """Bytes of the whole result."""
        return sum(shape.bytes for shape in self.shapes)

    def called(self, *keys: str) -> Sequence[str]:
        """Names of the computations in these attributes."""
        if self._called is None:
            self._called = {}
        if keys not in self._called:
            self._called[keys] = self._names_in(keys)
        return self._called[keys]

    def _names_in(self, keys: Sequence[str]) -> Sequence[str]:
        found: list[str] = []
        for key in keys:
            if key not in self.rest:
                continue
            one = _CALLED[key].search(self.rest) if key in _CALLED else None
            if one is not None and '"' not in self.rest[: one.start()]:
                found.append(one[1])
            else:
                text = self.attributes.get(key, "")
                found += [each.strip().lstrip("%") for each in text.strip("{}").split(",") if each.strip()]
        return found


@dataclass(frozen=True)
class Computation:
    """Instructions in issue order."""

    name: str
    instructions: tuple[Instruction, ...]

    @cached_property
    def opcodes(self) -> frozenset[str]:
        """What is among its instructions."""
        return frozenset(each.opcode for each in self.instructions)

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Name → instruction."""
        return {each.name: each for each in self.instructions}

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Number → parameter."""
        return {int(each.literal): each for each in self.instructions if each.opcode == "parameter"}

    @property
    def root(self) -> Instruction:
        """The instruction whose result is the computation's."""
        return next(each for each in reversed(self.instructions) if each.is_root)

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Name → the instructions that read it."""
        found: dict[str, list[Instruction]] = {}
        for each in self.instructions:
            for operand in each.operands:
                found.setdefault(operand, []).append(each)
        return found


@dataclass(frozen=True)
class Module:
    """A whole program. ``header`` are the lines before its first computation; ``partitions`` is the number of devices
    that it is partitioned over, 1 if it states none.
    """

    name: str
    entry: str
    computations: dict[str, Computation] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    partitions: int = 1

    def __getitem__(self, name: str) -> Computation:
        try:
            return self.computations[name]
        except KeyError:
            raise UnreadableHlo(f"module {self.name} calls computation {name}, which it does not define") from None


def parse_module(text: str) -> Module:
    """Read a module.

    Raises:
        UnreadableHlo: it is not scheduled, or a line, named by its number, does not follow the grammar.
    """
    first = text[: text.find("\n")] if "\n" in text else text
    if not first.startswith("HloModule "):
        raise UnreadableHlo("the text does not begin with HloModule, so it is not HLO")
    if "is_scheduled=true" not in first:
        raise UnreadableHlo("the module lacks is_scheduled=true, so its lines are not in issue order")
    computations: dict[str, Computation] = {}
    header_lines: list[str] = []
    entry = name = None
    body: list[Instruction] = []
    for number, line in _logical(text):
        header = _HEADER.match(COMMENT.sub("", line)) if line.endswith("{") else None
        if header and name is not None:
            raise UnreadableHlo(f"line {number} of the module begins a computation before {name} ends")
        if header:
            name, body = header[2], []
            entry = name if header[1] else entry
        elif name is None:
            if not computations:
                header_lines.append(line)
        elif line.startswith("}"):
            computations[name] = Computation(name, tuple(body))
            name = None
        elif line.strip():
            try:
                body.append(parse_instruction(line))
            except (ValueError, IndexError, KeyError) as error:
                raise UnreadableHlo(f"line {number} of the module is not a known instruction: {error}") from error
    if entry is None or name is not None:
        raise UnreadableHlo("the module ends before its entry computation does")
    partitions = _PARTITIONS.search(first)
    return Module(
        first.split()[1].rstrip(","),
        entry,
        computations,
        tuple(header_lines),
        int(partitions[1]) if partitions else 1,
    )


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Lines with the number of their first: a kernel's metadata is JSON, whose lines continue an instruction."""
    pending: list[str] = []
    first = depth = 0
    for number, (line, after) in enumerate(itertools.pairwise(itertools.chain(_lines(text), [""])), 1):
        if not pending and (after.startswith(_BEGINS) or balanced(line) or not _INSTRUCTION.match(line.lstrip())):
            yield number, line
            continue
        if not pending:
            first, depth = number, 0
        pending.append(line)
        depth += depth_of(line)
        if depth <= 0:
            yield first, "\n".join(pending)
            pending = []
    if pending:
        yield first, "\n".join(pending)


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, one by one: a list of them would take as much memory as the text again."""
    start, end = 0, text.find("\n")
    while end >= 0:
        yield text[start:end]
        start, end = end + 1, text.find("\n", end + 1)
    if start < len(text):
        yield text[start:]


def parse_instruction(line: str) -> Instruction:
    """One line of a computation.

    Raises:
        ValueError: it does not follow the grammar.
    """
    if "/*" in line:
        line = COMMENT.sub("", line)
    plain = _PLAIN.match(line)
    if plain is None:
        return _by_brackets(line.strip())
    root, name, shape, opcode, inside, rest = plain.groups()
    operands = tuple(_OPERAND.findall(inside))
    literal = "" if operands else inside
    return Instruction(name, opcode, shapes_of(shape), shape[0] == "(", operands, literal, rest or "", bool(root))


def _by_brackets(line: str) -> Instruction:
    """An instruction whose operands or shape hold brackets within brackets, or quoted text."""
    head = _INSTRUCTION.match(line)
    if head is None:
        raise ValueError(line[:80])
    at = head.end()
    is_tuple = line[at] == "("
    end = closing(line, at) + 1 if is_tuple else line.index(" ", at)
    opcode = _OPCODE.match(line, end + 1)
    if opcode is None:
        raise ValueError(line[:80])
    last = closing(line, opcode.end() - 1)
    inside = line[opcode.end() : last]
    operands = tuple(each.split()[-1].lstrip("%") for each in split(inside) if "%" in each)
    literal = "" if operands else inside
    rest = line[last + 1 :].lstrip(", ")
    return Instruction(head[2], opcode[1], shapes_of(line[at:end]), is_tuple, operands, literal, rest, bool(head[1]))

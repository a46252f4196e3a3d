"""Reads the text of a scheduled HLO module: computations of instructions in issue order.

The grammar is that of ``HloModule::ToString`` as ``compiled.as_text()`` prints it. An instruction stands on one line::

    [ROOT ]%name = SHAPE opcode(OPERANDS), key=value, key={...}, backend_config={JSON}
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from engines.core.errors import ShardbenchError

ELEMENT_BITS: Final[dict[str, int]] = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32,
    "s64": 64, "u64": 64, "f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128, "token": 0, "opaque": 0,
    "f8e5m2": 8, "f8e4m3": 8, "f8e4m3fn": 8, "f8e4m3b11fnuz": 8, "f8e5m2fnuz": 8, "f8e4m3fnuz": 8, "f8e3m4": 8,
    "f8e8m0fnu": 8, "f4e2m1fn": 4,
}  # fmt: skip
"""Bits of one element; a pred takes one byte in memory."""

_OPENING: Final = {"{": "}", "[": "]", "(": ")"}
_DEPTH: Final = {**dict.fromkeys(_OPENING, 1), **dict.fromkeys(_OPENING.values(), -1)}
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[][(){},]')
"""A quoted text, or a bracket or comma outside of all."""
_COMMENT: Final = re.compile(r"/\*.*?\*/")
_HEADER: Final = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_ARRAY: Final = re.compile(r"(\w+)\[([^\]]*)\](?:\{([^}]*)\})?")
_SPACE: Final = re.compile(r"S\((\d+)\)")
_INSTRUCTION: Final = re.compile(r"^(ROOT )?%?([\w.\-]+) = ")
_PARTITIONS: Final = re.compile(r"\bnum_partitions=(\d+)")
_OPCODE: Final = re.compile(r"([a-z][a-z0-9\-]*)\(")


class UnreadableHlo(ShardbenchError):
    """The text is not a scheduled HLO module that this parser can read."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One array: element type, dimensions, and the memory space of its layout (0 is HBM)."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def bytes(self) -> float:
        """Bytes without padding."""
        size = ELEMENT_BITS[self.dtype] / 8
        for dim in self.dims:
            size *= dim
        return size


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One line. ``shapes`` are the leaves of its result; ``operands`` are names; ``attributes`` are unparsed."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    is_tuple: bool
    operands: tuple[str, ...]
    literal: str
    attributes: Mapping[str, str]
    is_root: bool = False

    @cached_property
    def backend(self) -> dict[str, Any]:
        """The backend's notes: window, cycles, collective algorithm."""
        text = self.attributes.get("backend_config", "")
        if not text.startswith("{"):
            return {}
        found: dict[str, Any] = json.loads(text)
        return found

    @property
    def cycles(self) -> int | None:
        """The compiler's own estimate, in cycles of the core clock."""
        for holder in (self.backend.get("window_config", {}), self.backend):
            if "estimated_cycles" in holder:
                return int(holder["estimated_cycles"])
        return None

    @property
    def bytes(self) -> float:
        """Bytes of the whole result."""
        return sum(shape.bytes for shape in self.shapes)

    def called(self, *keys: str) -> list[str]:
        """Names of the computations in these attributes."""
        found: list[str] = []
        for key in keys:
            text = self.attributes.get(key, "")
            found += [each.strip().lstrip("%") for each in text.strip("{}").split(",") if each.strip()]
        return found


@dataclass(frozen=True)
class Computation:
    """Instructions in issue order."""

    name: str
    instructions: tuple[Instruction, ...]

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
    lines = text.splitlines()
    first = lines[0] if lines else ""
    if not first.startswith("HloModule "):
        raise UnreadableHlo("the text does not begin with HloModule, so it is not HLO")
    if "is_scheduled=true" not in first:
        raise UnreadableHlo("the module lacks is_scheduled=true, so its lines are not in issue order")
    computations: dict[str, Computation] = {}
    header_lines: list[str] = []
    entry = name = None
    body: list[Instruction] = []
    for number, line in _logical(lines):
        header = _HEADER.match(_COMMENT.sub("", line)) if line.endswith("{") else None
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


def _logical(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Lines with the number of their first: a kernel's metadata is JSON, whose lines continue an instruction."""
    pending: list[str] = []
    first = depth = 0
    for number, line in enumerate(lines, 1):
        if pending and depth > 0:
            pending.append(line)
        else:
            if pending:
                yield first, "\n".join(pending)
            pending, first, depth = [line], number, 0
        # Only an instruction goes on, not the opening of a computation.
        if len(pending) > 1 or _INSTRUCTION.match(line.lstrip()):
            depth += sum(_DEPTH.get(found[0], 0) for found in _TOKEN.finditer(line))
    if pending:
        yield first, "\n".join(pending)


def parse_instruction(line: str) -> Instruction:
    """One line of a computation.

    Raises:
        ValueError: it does not follow the grammar.
    """
    line = _COMMENT.sub("", line).strip()
    head = _INSTRUCTION.match(line)
    if head is None:
        raise ValueError(line[:80])
    at = head.end()
    is_tuple = line[at] == "("
    end = _closing(line, at) + 1 if is_tuple else line.index(" ", at)
    shapes = tuple(_shapes(line[at:end]))
    opcode = _OPCODE.match(line, end + 1)
    if opcode is None:
        raise ValueError(line[:80])
    closing = _closing(line, opcode.end() - 1)
    inside = line[opcode.end() : closing]
    pieces = list(_split(inside))
    operands = tuple(each.split()[-1].lstrip("%") for each in pieces if "%" in each)
    attributes = {}
    for piece in _split(line[closing + 1 :]):
        key, _, value = piece.partition("=")
        attributes[key.strip()] = value.strip()
    return Instruction(
        name=head[2],
        opcode=opcode[1],
        shapes=shapes,
        is_tuple=is_tuple,
        operands=operands,
        literal="" if operands else inside,
        attributes=attributes,
        is_root=bool(head[1]),
    )


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, dims, layout in _ARRAY.findall(text):
        space = _SPACE.search(layout)
        sizes = tuple(int(each.lstrip("<=")) for each in dims.split(",") if each)
        if dtype not in ELEMENT_BITS:
            raise ValueError(f"element type {dtype}")
        yield Shape(dtype, sizes, int(space[1]) if space else 0)


def _closing(text: str, start: int) -> int:
    """Position of the bracket that closes the one at ``start``, ignoring quoted text."""
    opened, close = text[start], _OPENING[text[start]]
    depth = 0
    for found in _TOKEN.finditer(text, start):
        character = found[0]
        if character == opened:
            depth += 1
        elif character == close:
            depth -= 1
            if not depth:
                return found.start()
    raise ValueError(f"a {opened} is never closed")


def _split(text: str) -> Iterator[str]:
    """The parts between top-level commas, those outside brackets and strings."""
    depth = start = 0
    for found in _TOKEN.finditer(text):
        character = found[0]
        if character in _OPENING:
            depth += 1
        elif character in "}])":
            depth -= 1
        elif character == "," and not depth:
            if part := text[start : found.start()].strip():
                yield part
            start = found.end()
    if part := text[start:].strip():
        yield part

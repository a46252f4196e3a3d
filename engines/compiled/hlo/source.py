"""The line of the user's source that each instruction comes from, as the compiler passed it on.

An instruction's metadata name its operation and either a file and a line, or a frame of the tables ``FileNames``,
``FunctionNames``, ``FileLocations`` and ``StackFrames`` at the head of the module. JAX leaves its own frames out, and
those of installed packages are passed over where a user's called them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from engines.compiled.hlo.parser import Computation, Instruction, Module

_TABLES: Final = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
_ENTRY: Final = re.compile(r'^(\d+) (?:"(.*)"|\{(.*)\})$')
_NUMBERS: Final = re.compile(r"(\w+)=(-?\d+)")
_OP_NAME: Final = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_FILE: Final = re.compile(r'source_file="((?:[^"\\]|\\.)*)"')
_LINE: Final = re.compile(r"source_line=(\d+)")
_FRAME: Final = re.compile(r"stack_frame_id=(\d+)")
_INSTALLED: Final = ("/site-packages/", "/dist-packages/")
"""Folders of packages that somebody installed: a line of theirs tells less than the user's that called them."""
_DEEPEST: Final = 8
"""Most fusions inside one another that are searched for metadata."""


@dataclass(frozen=True, slots=True)
class Source:
    """A place in a program: ``operation`` is JAX's path to it; ``file`` is empty, ``line`` 0 where it is not known."""

    file: str = ""
    line: int = 0
    function: str = ""
    operation: str = ""

    @property
    def place(self) -> str:
        """``file:line``, else the operation, else an empty text."""
        return f"{self.file}:{self.line}" if self.file else self.operation


NOWHERE: Final = Source()


def operation_of(each: Instruction) -> str:
    """JAX's path to the operation that an instruction's own metadata name; empty without any."""
    at = each.rest.find("metadata={")
    found = _OP_NAME.search(each.rest, at) if at >= 0 else None
    return found[1] if found else ""


@dataclass(frozen=True)
class Sources:
    """Frame id → place, read from the head of a module."""

    frames: Mapping[int, Source] = field(default_factory=dict)

    def of(self, module: Module, each: Instruction) -> Source:
        """The source of an instruction: its own metadata, else of what it fuses, the last operation first."""
        return self._of(module, each, 0)

    def named(self, module: Module, computations: Iterable[str]) -> dict[str, Source]:
        """Name of an instruction → its source, of all instructions of these computations.

        One without metadata, as a copy that the compiler made, takes that of its operand, else of its first reader:
        it moves a value from one to the other.
        """
        found: dict[str, Source] = {}
        for name in computations:
            computation = module[name]
            for each in computation.instructions:
                own = self.of(module, each)
                found[each.name] = own if own.place else self._of_operand(computation, each, found)
            for each in reversed(computation.instructions):
                if not found[each.name].place:
                    readers = computation.users.get(each.name, ())
                    found[each.name] = next(
                        (found[user.name] for user in readers if user.name in found and found[user.name].place), NOWHERE
                    )
        return found

    def _of_operand(self, computation: Computation, each: Instruction, found: Mapping[str, Source]) -> Source:
        if each.opcode in ("tuple", "while", "conditional", "call"):
            return NOWHERE
        known = (found[name] for name in each.operands if name in computation.by_name and name in found)
        return next((source for source in known if source.place), NOWHERE)

    def _of(self, module: Module, each: Instruction, depth: int) -> Source:
        at = each.rest.find("metadata={")
        own = self._stated(each.rest[at:]) if at >= 0 else NOWHERE
        if own.file or depth == _DEEPEST or each.opcode not in ("fusion", "async-start", "call-start", "custom-call"):
            return own
        for name in each.called("calls", "called_computations"):
            body = module.computations.get(name)
            for inner in reversed(body.instructions if body is not None else ()):
                source = self._of(module, inner, depth + 1)
                if source.file:
                    return source
        return own

    def _stated(self, metadata: str) -> Source:
        operation = found[1] if (found := _OP_NAME.search(metadata)) else ""
        file, line = _FILE.search(metadata), _LINE.search(metadata)
        if file and line:
            return Source(file[1], int(line[1]), "", operation)
        frame = _FRAME.search(metadata)
        place = self.frames.get(int(frame[1]), NOWHERE) if frame else NOWHERE
        return Source(place.file, place.line, place.function, operation)


def read_sources(module: Module) -> Sources:
    """The tables at the head of a module; without any, only metadata that state a file themselves are known."""
    tables: dict[str, dict[int, str]] = {name: {} for name in _TABLES}
    current: dict[int, str] | None = None
    for line in module.header:
        if line in tables:
            current = tables[line]
        elif current is not None and (entry := _ENTRY.match(line)):
            current[int(entry[1])] = entry[2] if entry[2] is not None else entry[3]
    places = {number: _numbers(text) for number, text in tables["FileLocations"].items()}
    own: dict[int, Source] = {}
    parents: dict[int, int] = {}
    for number, text in tables["StackFrames"].items():
        numbers = _numbers(text)
        place = places.get(numbers.get("file_location_id", 0), {})
        file = tables["FileNames"].get(place.get("file_name_id", 0), "")
        function = tables["FunctionNames"].get(place.get("function_name_id", 0), "")
        own[number] = Source(file, place.get("line", 0), function)
        parents[number] = numbers.get("parent_frame_id", 0)
    # The first frame has no parent: what it states tells whether parents count from 0 or from 1.
    none = parents.get(1, 0)
    return Sources({number: _of_user(number, own, parents, none) for number in own if own[number].file})


def _of_user(number: int, own: Mapping[int, Source], parents: Mapping[int, int], none: int) -> Source:
    """The innermost frame of a stack that is in no installed package; the innermost of all where every one is."""
    at = number
    for _ in range(len(own)):
        if not any(folder in own[at].file for folder in _INSTALLED):
            return own[at]
        at = parents[at] - none
        if at not in own:
            break
    return own[number]


def _numbers(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in _NUMBERS.findall(text)}

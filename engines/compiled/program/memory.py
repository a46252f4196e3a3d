"""HBM of one device by kind."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from engines.compiled.hlo.parser import Module
from engines.compiled.target.memory import peak_bytes

_NAMED: Final = re.compile(r'op_name="([^"\[.]*)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one device. ``arguments`` are by name of the function's argument, without padding.

    Of a program of which only the text is there, nobody says what its temporaries and code take: they are None, and
    ``peak_bytes`` is too.
    """

    arguments: Mapping[str, float]
    arguments_bytes: float
    outputs_bytes: float
    donated_bytes: float | None
    temporaries_bytes: float | None
    code_bytes: float | None
    peak_bytes: float | None


def memory_of(module: Module, memory: Mapping[str, float]) -> Memory:
    """The memory of a compiled program; ``memory`` is the compiler's own analysis, empty where it is not known."""
    entry = module[module.entry]
    arguments: Counter[str] = Counter()
    for each in entry.instructions:
        if each.opcode == "parameter":
            named = _NAMED.search(each.attributes.get("metadata", ""))
            arguments[named[1] if named and named[1] else "unnamed"] += each.bytes  # type: ignore[assignment]
    return Memory(
        arguments=dict(arguments.most_common()),
        arguments_bytes=memory.get("argument", sum(arguments.values())),
        outputs_bytes=memory.get("output", entry.root.bytes),
        donated_bytes=memory.get("alias"),
        temporaries_bytes=memory.get("temp"),
        code_bytes=memory.get("generated_code"),
        peak_bytes=peak_bytes(memory) if memory else None,
    )

"""What ``shardbench estimate`` asks, as plain values that its child process reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.programs.shapes import Shape
from engines.core.slice import Slice


@dataclass(frozen=True, kw_only=True)
class Question:
    """One program, or the programs of one factory, on a slice.

    Exactly one of ``function`` (``module:name``), ``hlo`` and ``stablehlo`` (paths) is given. ``arguments`` are shapes
    to call the function with; without them it is a factory, called with ``settings``. ``axes`` is the program's mesh,
    None the slice's own; there are ``num_slices`` of the slice. ``trace`` and ``save_hlo`` are files to write.
    """

    slice: Slice
    function: str | None = None
    hlo: Sequence[str] = ()
    stablehlo: str | None = None
    arguments: Sequence[Shape] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, int] | None = None
    num_slices: int = 1
    explicit: bool = False
    trips: tuple[int, int] | None = None
    compiler_options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    path: Sequence[str] = ()
    cache_dir: str | None = None
    trace: str | None = None
    save_hlo: str | None = None
    timeout_s: float = 600.0

    @property
    def called(self) -> str:
        """The program's name, as far as is known before it is read: ``module.function``, or the file's."""
        if self.name is not None:
            return self.name
        if self.function is not None:
            return self.function.replace(":", ".")
        return Path(self.stablehlo or self.hlo[0]).name.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer for one name: the programs of a step in order (one, unless a factory gives a list), or an error.

    ``programs`` are :meth:`ProgramEstimate.to_dict`, ``told`` is :meth:`ProgramEstimate.explain` of each. ``status`` is
    that of a row.
    """

    name: str
    status: str = "ok"
    error: str | None = None
    programs: Sequence[Mapping[str, Any]] = ()
    told: Sequence[str] = ()
    files: Sequence[str] = ()

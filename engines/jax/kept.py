"""Programs that this process has compiled, kept for the next point that runs the same.

A prefill, a decode and a generate point of the same lengths share programs, as do points that differ in values alone
(such as ``routing_skew``). The harness answers such points one after the other in one process.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from engines.core.digest import digest

MOST_KEPT: Final = 16
"""Those of two points that run layer by layer: a prefill and a step of about four programs each."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A compiled program and the seconds that compiling it took, when it was."""

    compiled: Any
    compile_s: float


_kept: OrderedDict[str, Kept] = OrderedDict()


def compiled_once(lowered: Any, text: str, options: Mapping[str, Any] | None, devices: tuple[int, ...]) -> Kept:
    """The compiled program of ``lowered`` (JAX's), whose StableHLO is ``text``, for devices of these ids.

    A text has neither the pytrees of arguments and results nor an argument that is not used, and a compiled program is
    strict about them: those that differ there are not the same.
    """
    key = digest(text, options, devices, str(lowered.args_info), str(lowered.out_tree))
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key]
    start = time.perf_counter()
    found = Kept(lowered.compile(options), time.perf_counter() - start)
    _kept[key] = found
    while len(_kept) > MOST_KEPT:
        _kept.popitem(last=False)
    return found

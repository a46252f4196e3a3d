"""The compiled programs of a point, by name."""

import time
from typing import Any

from engines.jax.devices import compiler_options
from engines.jax.kept import compiled_once
from engines.jax.work import Work


class Programs:
    """``compiled`` has every program, ``calls`` what runs a stage, ``timed_texts`` the StableHLO of what is timed.

    A stage's programs have its name, or one that begins with it and a space.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.compiled: dict[str, Any] = {}
        self.calls: dict[str, Any] = {}
        self.timed_texts: dict[str, str] = {}
        self.compile_s = 0.0

    def add(self, name: str, function: Any, arguments: tuple[Any, ...], timed: bool) -> Any:
        """Compile a jitted function; what runs it is returned."""
        plan, mesh = self.work.plan, self.work.mesh
        start = time.perf_counter()
        lowered = function.lower(*arguments)
        text, lower_s = lowered.as_text(), time.perf_counter() - start
        devices = tuple(device.id for device in mesh.devices.flat)
        kept = compiled_once(lowered, text, compiler_options(plan, mesh), devices)
        self.compiled[name] = kept.compiled
        if timed:
            self.compile_s += lower_s + kept.compile_s
            self.timed_texts[name] = text
        # The jitted function is now compiled as well and accepts 4-bit arrays; the AOT program misreads their layout.
        four_bits = not {"int4", "mxfp4"}.isdisjoint((plan.weight_dtype, plan.head_format))
        return function if four_bits else kept.compiled

    def of(self, stage: str) -> list[Any]:
        """The compiled programs of a stage."""
        return [each for name, each in self.compiled.items() if name == stage or name.startswith(f"{stage} ")]

    def memory(self, stages: list[str]) -> list[Any]:
        """What XLA says of the memory of all programs of some stages."""
        found = [each.memory_analysis() for stage in stages for each in self.of(stage)]
        return [each for each in found if each]

    def clear(self) -> None:
        """Forget them."""
        self.compiled, self.calls = {}, {}

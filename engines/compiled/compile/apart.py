"""Compiles a large program in a process of its own, so that one beyond the limits costs no other program's answer.

The harness ends a worker that takes more memory or time than it may, and nothing that it found is kept. A compilation
cannot be interrupted: what may be too large runs in a process that is ended before the worker would be.
"""

import os
import pickle
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines.compiled.compile.cache import Cache, CompiledProgram
from engines.compiled.compile.compiler import Compiler, CompileRequest
from engines.core.errors import ShardbenchError, TimedOut
from engines.host.program import ExternalProgram, ProgramFailed, TooLarge
from engines.host.python import module_words
from engines.host.resident import resident_bytes
from engines.host.scratch import ScratchFolder

SHARE: Final = 0.8
"""Of the worker's time: reading and timing a program takes some as well."""


class NotCompiled(ShardbenchError):
    """A program that cannot be compiled within the limits of memory and time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may take: bytes of resident memory, and until when, by the monotonic clock. None is no limit."""

    memory_bytes: float | None = None
    until_s: float | None = None

    @classmethod
    def of(cls, memory_bytes: float | None, timeout_s: float | None) -> "Limits":
        """Those of a point that begins now."""
        return cls(memory_bytes, None if timeout_s is None else time.monotonic() + SHARE * timeout_s)

    def compile(self, compiler: Compiler, request: CompileRequest) -> CompiledProgram:
        """:meth:`Compiler.compile`, in a process of its own where there are limits and the program is not cached.

        Raises:
            NotCompiled: it cannot be compiled within them; says which.
        """
        found = compiler.cache.get(compiler.key(request))
        if found is not None or self == NO_LIMITS:
            return found or compiler.compile(request)
        left_s = float("inf") if self.until_s is None else self.until_s - time.monotonic()
        left_bytes = self._left_bytes()
        if left_s <= 0 or (left_bytes is not None and left_bytes <= 0):
            key = "timeout_s" if left_s <= 0 else "memory_limit_bytes"
            raise NotCompiled(f"not tried: nothing of engine.{key} is left; raise it")
        compiler.compilations += 1
        with ScratchFolder() as folder:
            kept = compiler.cache if compiler.cache.folder is not None else Cache(str(folder / "programs"))
            (folder / "request.pickle").write_bytes(pickle.dumps((request, compiler.options, str(kept.folder))))
            words = module_words(__name__, "request.pickle")
            try:
                ExternalProgram(words, folder, left_s, left_bytes).run()
            except TimedOut:
                raise NotCompiled("not compiled within engine.timeout_s; raise it") from None
            except TooLarge as error:
                raise NotCompiled(f"not compiled within engine.memory_limit_bytes, {error}; raise it") from None
            except ProgramFailed as error:
                raise NotCompiled(f"not compiled: {error}") from None
            compiled = kept.get(compiler.key(request))
        if compiled is None:
            raise NotCompiled(f"not compiled: its program cannot be kept in {kept.folder}; give engine.cache_dir")
        return compiled

    def _left_bytes(self) -> float | None:
        """What this process, which ends at its limit as well, leaves to another."""
        if self.memory_bytes is None:
            return None
        return self.memory_bytes - resident_bytes(os.getpgid(0))


NO_LIMITS: Final = Limits()


def main(path: str) -> None:
    """Compile the pickled request at ``path`` into its cache folder."""
    request, options, folder = pickle.loads(Path(path).read_bytes())
    Compiler(Cache(folder), options).compile(request)


if __name__ == "__main__":
    main(sys.argv[1])

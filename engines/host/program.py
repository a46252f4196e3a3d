"""Another program, run to its end with all that it starts."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from engines.core.errors import OutOfMemory, ShardbenchError, TimedOut, Unsupported
from engines.host import supervise

TAIL_CHARACTERS: Final = 600
POLL_S: Final = 0.05
OUT_OF_MEMORY: Final = ("out of memory", "outofmemoryerror")
"""What programs on CUDA print when memory runs out, in lower case."""


class ProgramFailed(ShardbenchError):
    """The program ended badly, or said something else than asked."""


@dataclass(frozen=True, slots=True)
class ExternalProgram:
    """A command line, run in ``folder``."""

    words: Sequence[str]
    folder: Path
    timeout_s: float

    def run(self) -> str:
        """Run it to its end, and return what it printed on stdout and stderr together.

        All that it started is ended with it: at its end, at the time-out, and when this process ends in any way.

        Raises:
            Unsupported: there is no such program.
            TimedOut: it did not end within ``timeout_s``.
            OutOfMemory: it failed and said that memory ran out.
            ProgramFailed: it failed; the sentence has the end of what it printed.
        """
        found = shutil.which(self.words[0])
        if found is None:
            raise Unsupported(f"{self.words[0]} is no program on this machine; install it, or name its path")
        with tempfile.TemporaryFile() as printed:
            code = self._guarded([str(Path(found).absolute()), *self.words[1:]], printed)
            printed.seek(0)
            output = printed.read().decode(errors="replace")
        if code is None:
            raise TimedOut(f"{self.name} did not end within {self.timeout_s:g} s{said(output)}")
        if code and any(words in output.lower() for words in OUT_OF_MEMORY):
            raise OutOfMemory(f"{self.name} ran out of memory{said(output)}")
        if code:
            raise ProgramFailed(f"{self.name} ended with exit code {code}{said(output)}")
        return output

    @property
    def name(self) -> str:
        """The program without its arguments."""
        return Path(self.words[0]).name

    @property
    def line(self) -> str:
        """The command line as one would type it."""
        return shlex.join(self.words)

    def _guarded(self, words: Sequence[str], printed: IO[bytes]) -> int | None:
        """The exit code, None at the time-out."""
        child = subprocess.Popen(
            [sys.executable, supervise.__file__, *words],
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=printed,
            cwd=self.folder,
            start_new_session=True,
        )
        deadline = time.monotonic() + self.timeout_s
        try:
            # Looked at and not reaped, so that its process group keeps its number until all of it is ended.
            while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                if time.monotonic() > deadline:
                    return None
                time.sleep(POLL_S)
            ended = True
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            code = child.wait()
            if child.stdin is not None:
                child.stdin.close()
        return code if ended else None


def said(output: str) -> str:
    """The end of what a program printed, to stand behind a sentence."""
    tail = " ".join(output.split())[-TAIL_CHARACTERS:]
    return f"; it last said: {tail}" if tail else " and said nothing"

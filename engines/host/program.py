"""An external program, run to its end together with all processes that it starts."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from engines.core.errors import OutOfMemory, ShardbenchError, TimedOut, Unsupported
from engines.host.python import supervised_words
from engines.host.resident import resident_bytes
from engines.host.scratch import scratch_file

TAIL_CHARACTERS: Final = 600
POLL_S: Final = 0.05
BOXES: Final = re.compile("[\u2500-\u259f]+")
"""Lines and blocks that programs draw around their messages."""
LOG_LINE: Final = re.compile(r"[IW]\d{4} |WARNING: All log messages before absl::InitializeLog")
"""Start of an info or warning line of a C++ library, which is not the reason why a process ended."""
OUT_OF_MEMORY: Final = ("out of memory", "outofmemoryerror")
"""What CUDA programs print when memory runs out, in lower case."""


class ProgramFailed(ShardbenchError):
    """The program failed, or its output is not what was expected.

    ``code`` is its exit code, above 128 by the number of the signal that killed it; ``output`` is what it printed.
    """

    code: int = 1
    output: str = ""


class TooLarge(ShardbenchError):
    """The program held more memory of this machine than it may, and was killed."""


@dataclass(frozen=True, slots=True)
class ExternalProgram:
    """A command line that runs in ``folder``; ``memory_bytes`` limits what its processes hold, None does not."""

    words: Sequence[str]
    folder: Path
    timeout_s: float
    memory_bytes: float | None = None

    def run(self) -> str:
        """Run it to its end; returns its stdout and stderr together.

        All processes that it started are killed at its end, at the time-out, and when this process ends in any way.

        Raises:
            Unsupported: the program is not installed.
            TimedOut: it did not end within ``timeout_s``.
            TooLarge: it held more than ``memory_bytes``.
            OutOfMemory: it failed and printed that memory ran out.
            ProgramFailed: it failed; the message quotes the end of its output.
        """
        found = shutil.which(self.words[0])
        if found is None:
            raise Unsupported(f"{self.words[0]} is not installed on this machine; install it, or give its path")
        with scratch_file() as printed:
            code = self._supervised([str(Path(found).absolute()), *self.words[1:]], printed)
            printed.seek(0)
            output = printed.read().decode(errors="replace")
        if code is None:
            raise TimedOut(f"{self.name} did not end within {self.timeout_s:g} s{output_tail(output)}")
        if code and any(words in output.lower() for words in OUT_OF_MEMORY):
            raise OutOfMemory(f"{self.name} ran out of memory{output_tail(output)}")
        if code:
            failed = ProgramFailed(f"{self.name} ended with exit code {code}{output_tail(output)}")
            failed.code, failed.output = code, output
            raise failed
        return output

    @property
    def name(self) -> str:
        """Name of the program, without its arguments."""
        return Path(self.words[0]).name

    @property
    def line(self) -> str:
        """The command line as typed in a shell."""
        return shlex.join(self.words)

    def _supervised(self, words: Sequence[str], printed: IO[bytes]) -> int | None:
        """The exit code; None after a time-out."""
        child = subprocess.Popen(
            supervised_words(*words),
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=printed,
            cwd=self.folder,
            start_new_session=True,
        )
        deadline = time.monotonic() + self.timeout_s
        try:
            # WNOWAIT: the child is not reaped, so that its process group id stays valid until the group is killed.
            while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                if time.monotonic() > deadline:
                    return None
                self._check_memory(child.pid)
                time.sleep(POLL_S)
            ended = True
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            code = child.wait()
            if child.stdin is not None:
                child.stdin.close()
        return code if ended else None

    def _check_memory(self, group: int) -> None:
        if self.memory_bytes is None:
            return
        # Twice: between fork and exec a new process counts with all the memory of its parent.
        for again in (True, False):
            held = resident_bytes(group)
            if held <= self.memory_bytes:
                return
            if again:
                time.sleep(POLL_S)
        raise TooLarge(f"{self.name} held {held / 1e9:.2f} GB of memory, more than {self.memory_bytes / 1e9:.2f} GB")


def output_tail(output: str) -> str:
    """The end of a program's output without what C++ libraries log, to append to an error message."""
    said = "\n".join(line for line in output.splitlines() if not LOG_LINE.match(line.strip()))
    tail = " ".join(BOXES.sub(" ", said).split())[-TAIL_CHARACTERS:]
    return f"; its output ends with: {tail}" if tail else " and printed nothing"

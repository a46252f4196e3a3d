"""A program that runs beside this process, and ends with it, together with all that it started."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engines.core.errors import Unsupported
from engines.host.program import output_tail
from engines.host.python import supervised_words
from engines.host.scratch import scratch_file


class BackgroundProgram:
    """``words``, started in ``folder``, until :meth:`close` or the end of this process, whatever ends it.

    Raises:
        Unsupported: the program is not installed.
    """

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        found = shutil.which(words[0])
        if found is None:
            raise Unsupported(f"{words[0]} is not installed on this machine; install it, or give its path")
        self.words = list(words)
        self._printed = scratch_file()
        self._child = subprocess.Popen(
            supervised_words(str(Path(found).absolute()), *words[1:]),
            stdin=subprocess.PIPE,
            stdout=self._printed,
            stderr=self._printed,
            cwd=folder,
            start_new_session=True,
        )

    @property
    def name(self) -> str:
        """Name of the program, without its arguments."""
        return Path(self.words[0]).name

    @property
    def line(self) -> str:
        """The command line as typed in a shell."""
        return shlex.join(self.words)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself. It is not reaped yet, so that its group stays its own until :meth:`close`."""
        return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def tail(self) -> str:
        """The end of what it printed, to append to a message."""
        self._printed.seek(0)
        return output_tail(self._printed.read().decode(errors="replace"))

    def close(self) -> None:
        """End it with all its processes."""
        if self._child.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._printed.close()

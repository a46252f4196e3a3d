"""Temporary folders that are gone when their user has ended, even by ``kill -9``."""

import os
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from engines.core.errors import ShardbenchError
from engines.host.held_back import signals_held
from engines.host.python import keeper_words

PREFIX: Final = "shardbench-"


class ScratchFolder:
    """A new temporary folder, ``path``, until :meth:`close` or the end of this process, whatever ends it.

    A small process of its own makes it and removes it, so that there is no moment at which a kill leaves it behind.
    This process waits until it is gone, also where an exception, as of Ctrl-C, kept :meth:`close` from being called.
    """

    def __init__(self, parent: Path | None = None, prefix: str = PREFIX) -> None:
        """Make the folder inside ``parent``, by default where temporary files go (``TMPDIR``).

        Raises:
            ShardbenchError: it cannot be made.
        """
        place = str(temporary_place() if parent is None else parent)
        with signals_held():
            keeper = subprocess.Popen(
                keeper_words(place, prefix),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the command, which then closes the folder
            )
            self._removal = weakref.finalize(self, _remove, keeper)
        assert keeper.stdout is not None
        try:
            said = keeper.stdout.readline().removesuffix(b"\n")
        except BaseException:
            self._removal()
            raise
        if not said:
            self._removal.detach()
            _, problem = keeper.communicate()
            raise ShardbenchError(
                f"{place}: no folder can be made there ({problem.decode(errors='replace').strip() or 'it died'}); "
                "make it writable, or set TMPDIR to another folder for temporary files"
            )
        self.path = Path(os.fsdecode(said))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder."""
        with signals_held():
            self._removal()
            shutil.rmtree(self.path, ignore_errors=True)  # in case the keeper was killed


def _remove(keeper: subprocess.Popen[bytes]) -> None:
    with signals_held():
        keeper.communicate()  # closes its stdin


def temporary_place() -> Path:
    """The folder for temporary files.

    Raises:
        ShardbenchError: there is none that can be written.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise ShardbenchError(
            f"TMPDIR={os.environ.get('TMPDIR', '')}: no folder for temporary files can be written; "
            "set TMPDIR to one that can"
        ) from None


def scratch_file() -> IO[bytes]:
    """A temporary file without a name, which is gone once no process has it open.

    Raises:
        ShardbenchError: there is no place for it.
    """
    place = temporary_place()
    try:
        return tempfile.TemporaryFile(dir=place)
    except OSError as error:
        raise ShardbenchError(
            f"{place}: no temporary file can be made there ({error.strerror}); set TMPDIR to another folder"
        ) from None

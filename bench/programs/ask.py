"""Answers a question in a child process, under a time limit."""

import pickle
import re
import signal
from pathlib import Path
from typing import Final

from bench.programs.question import Answer, Question
from engines.core.errors import ShardbenchError, TimedOut
from engines.core.text import shortened
from engines.host.program import ExternalProgram, ProgramFailed
from engines.host.python import module_words
from engines.host.scratch import ScratchFolder

_NOISE: Final = re.compile(
    r"[IWEF]\d{4} |WARNING: |=== Source Location|learning/|https?://|\*\*\*|PC: @|@ |@$|Failed to find host bounds|"
    r"\(unknown\)|RPC: "
)
"""Lines of C++ libraries: logs, and the stack of a crash."""
SIGNALLED: Final = 128
"""Above it an exit code is that of a signal."""


def answers(question: Question) -> list[Answer]:
    """The answers of a child process in the current folder; one with status ``timeout`` or ``failed`` if it has none.

    Raises:
        ShardbenchError: the child cannot be started.
    """
    with ScratchFolder() as scratch:
        asked, answered = scratch / "question", scratch / "answers"
        asked.write_bytes(pickle.dumps(question))
        words = module_words("bench.programs.worker", str(asked), str(answered))
        try:
            ExternalProgram(words, Path.cwd(), question.timeout_s).run()
        except TimedOut:
            limit = f"no answer within timeout_s={question.timeout_s:g} s; raise it or use a smaller program"
            return [Answer(name=question.called, status="timeout", error=limit)]
        except ProgramFailed as error:
            return [Answer(name=question.called, status="failed", error=_how_it_died(error))]
        except ShardbenchError as error:
            return [Answer(name=question.called, status="failed", error=str(error))]
        found: list[Answer] = pickle.loads(answered.read_bytes())
        return found


def _how_it_died(error: ProgramFailed) -> str:
    """One sentence: the signal or the exit code, and the last line that is no log or stack of a C++ library."""
    said = [line.strip() for line in error.output.splitlines() if line.strip() and not _NOISE.match(line.strip())]
    last = f": {shortened(said[-1])}" if said else ""
    if error.code > SIGNALLED:
        number = error.code - SIGNALLED
        known = {each.value: each.name for each in signal.Signals}
        return f"the process that compiles was killed by {known.get(number, f'signal {number}')}{last}"
    return f"the process that compiles ended with exit code {error.code}{last}"

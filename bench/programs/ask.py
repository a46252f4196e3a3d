"""Answers a question in a child process, under a time limit."""

import pickle
from pathlib import Path

from bench.programs.question import Answer, Question
from engines.core.errors import ShardbenchError, TimedOut
from engines.host.program import ExternalProgram, ProgramFailed
from engines.host.python import module_words
from engines.host.scratch import ScratchFolder


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
            return [Answer(name=name_of(question), status="timeout", error=limit)]
        except ProgramFailed as error:
            return [Answer(name=name_of(question), status="failed", error=f"the compiler's process died: {error}")]
        except ShardbenchError as error:
            return [Answer(name=name_of(question), status="failed", error=str(error))]
        found: list[Answer] = pickle.loads(answered.read_bytes())
        return found


def name_of(question: Question) -> str:
    """The name of a question's program, as far as is known before it is read."""
    if question.name is not None:
        return question.name
    if question.function is not None:
        return question.function.rpartition(":")[2]
    return Path(question.stablehlo or question.hlo[0]).name.partition(".")[0]

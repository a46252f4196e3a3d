"""The child process of ``shardbench estimate``: reads a question, compiles and times its programs, writes the answers.

The user's code and the compiler run here, so that a crash, a hang or an abort ends this process and not the command.
"""

import os
import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.programs.question import Answer, Question
from engines.core.errors import InvalidRequest, OutOfMemory, ShardbenchError, Unsupported
from engines.host.parent import end_with_parent

if TYPE_CHECKING:
    from engines.compiled.program.estimate import Settings
    from engines.compiled.program.result import ProgramEstimate


def main(asked: str, answered: str) -> None:
    """Answer the question in the file ``asked``; the answers go to the file ``answered``."""
    end_with_parent()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # no accelerator is looked for
    question: Question = pickle.loads(Path(asked).read_bytes())
    try:
        answers = answers_of(question)
    except ShardbenchError as error:
        answers = [refused(question.called, error)]
    part = Path(f"{answered}.part")
    part.write_bytes(pickle.dumps(answers))
    part.replace(answered)


def answers_of(question: Question) -> list[Answer]:
    """One answer a name.

    Raises:
        ShardbenchError: the programs cannot be made.
    """
    from engines.compiled.hlo.schedule import Trips
    from engines.compiled.program.estimate import Settings, ready

    ready(question.slice)
    settings = Settings(
        compiler_options=question.compiler_options,
        unknown_trips=None if question.trips is None else Trips(*question.trips),
        cache_dir=question.cache_dir,
        num_slices=question.num_slices,
    )
    if question.function is not None:
        return _of_function(question, settings)
    from engines.compiled.program.files import estimate_hlo, estimate_stablehlo

    if question.stablehlo is not None:
        found = [estimate_stablehlo(question.stablehlo, question.slice, question.axes, settings, question.name)]
    else:
        found = [estimate_hlo(each, question.slice, question.axes, settings, question.name) for each in question.hlo]
    name = question.name or found[0].name
    return [_answer(replace(question, name=name), name, found, several=False)]


def _of_function(question: Question, settings: "Settings") -> list[Answer]:
    from bench.programs.source import calls_of
    from engines.compiled.program.estimate import estimate_function
    from engines.compiled.program.lowering import mesh_among
    from engines.compiled.program.placement import absent_mesh

    mesh = absent_mesh(question.slice, question.axes, explicit=question.explicit, num_slices=question.num_slices)
    calls = calls_of(question, mesh)
    answers = []
    for name, step in calls.items():
        try:
            found = [
                estimate_function(
                    call.function,
                    call.arguments,
                    question.slice,
                    mesh_among((call.arguments, call.keywords)) or mesh,
                    settings,
                    keywords=call.keywords,
                    in_shardings=call.in_shardings,
                    name=name if len(step) == 1 else None,
                )
                for call in step
            ]
        except ShardbenchError as error:
            answers.append(refused(name, error))
            continue
        answers.append(_answer(question, name, found, several=len(calls) > 1))
    return answers


def _answer(question: Question, name: str, found: "Sequence[ProgramEstimate]", *, several: bool) -> Answer:
    files = []
    for number, each in enumerate(found):
        suffix = f".{name}" if several else ""
        suffix += f".{number}" if len(found) > 1 else ""
        if question.trace is not None:
            files.append(str(each.trace(_beside(question.trace, suffix))))
        if question.save_hlo is not None:
            files.append(str(_written(_beside(question.save_hlo, suffix), each.hlo)))
    return Answer(
        name=name,
        programs=[each.to_dict() for each in found],
        told=[each.explain() for each in found],
        files=files,
    )


def _beside(path: str, suffix: str) -> Path:
    """``trace.json.gz`` → ``trace.decode.json.gz``."""
    given = Path(path)
    stem, dot, rest = given.name.partition(".")
    return given.with_name(f"{stem}{suffix}{dot}{rest}")


def _written(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest("save_hlo", path, f"cannot be written ({error.strerror})", "use another file") from None
    return path


def refused(name: str, error: ShardbenchError) -> Answer:
    """The answer of a program that has no time."""
    kinds: dict[type[ShardbenchError], str] = {OutOfMemory: "oom", Unsupported: "unsupported"}
    status = next((status for kind, status in kinds.items() if isinstance(error, kind)), "failed")
    return Answer(name=name, status="invalid" if isinstance(error, InvalidRequest) else status, error=str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Rows of programs that somebody else wrote.

Such a row has the phase ``program``: no batch, no lengths and no dtypes of a Transformer. They are 0 and empty, as in a
row of a server, and its ``latency_s`` is the time of one step: one call of the function, or of all its programs.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from bench.programs.question import Answer, Question
from bench.run.environment import read_environment
from engines.compiled.cost.version import DETAIL, timing_model
from engines.core.digest import digest
from engines.core.row import PROGRAM, Row, Status

SUMS: Final = ("compute_s", "memory_s", "communication_s")


def row_of(question: Question, answer: Answer) -> Row:
    """The row of an answer. Programs of a step follow one another: times add up, memory is that of the largest."""
    environment = read_environment()
    programs = answer.programs
    found = answer.status == "ok"
    total: dict[str, Any] = {name: sum(each[name] for each in programs) for name in SUMS} if found else {}
    seconds = sum(each["step_time_s"] for each in programs) if found else None
    if found:
        total["overlapped_s"] = max(0.0, total["communication_s"] - sum(each["exposed_s"] for each in programs))
        total["overhead_s"] = sum(each["copy_wait_s"] for each in programs)
        total |= _memory(programs, question.slice.chip.xla.cores if question.slice.chip.xla is not None else 1)
    versions: Mapping[str, str] = programs[0]["versions"] if found else {}
    return Row(
        **asked(question, answer.name),
        point_id=point_id(question, answer.name),
        program_id=digest([each["program_id"] for each in programs]) if found else None,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        source="compiled",
        status=cast("Status", answer.status),
        error=answer.error,
        valid=found,
        invalid_reason=answer.error,
        latency_s=seconds,
        hbm_bytes_per_s=question.slice.chip.hbm_bytes_per_s,
        **total,
        git_sha=environment.git_sha,
        git_dirty=environment.git_dirty,
        versions={**environment.versions, **versions},
        host=environment.host,
        device_kind=question.slice.chip.name,
        details=_details(question, answer) if found else {},
    )


def asked(question: Question, name: str) -> dict[str, Any]:
    """The point's keys of the row: those that do not apply are empty."""
    return {
        "model": name,
        "hw": question.slice.chip.name,
        "num_chips": question.slice.num_chips * question.num_slices,
        "engine": "compiled",
        "phase": PROGRAM,
        "batch_size": 0,
        "input_len": 0,
        "output_len": 0,
        "mesh_shape": list(question.slice.mesh_shape),
    }


def point_id(question: Question, name: str) -> str:
    """A digest of what was asked, and not of the program: name, slice, mesh, settings and compiler options.

    So the program of today is compared with that of yesterday.
    """
    shapes = None if question.arguments is None else [[*each.dims, each.dtype] for each in question.arguments]
    several = [question.num_slices] if question.num_slices > 1 else []
    return digest(
        [PROGRAM, asked(question, name), question.axes, question.explicit, shapes],
        [question.settings, question.trips, question.compiler_options, *several],
    )


def _memory(programs: Any, cores: int) -> dict[str, float | None]:
    """Bytes of one chip, which has ``cores`` devices."""
    peaks = [each["hbm"]["peak_bytes"] for each in programs]
    temporaries = [each["hbm"]["temporaries_bytes"] for each in programs]
    return {
        "peak_hbm_bytes": cores * max(peaks) if None not in peaks else None,
        "activations_bytes": cores * max(temporaries) if None not in temporaries else None,
    }


def _details(question: Question, answer: Answer) -> dict[str, Any]:
    programs = answer.programs
    seconds, counts = Counter[str](), Counter[str]()
    for each in programs:
        seconds.update(each["unestimated_by_label_s"])
        counts.update(each["unestimated_instructions"])
    total = sum(each["step_time_s"] for each in programs)
    instructions = {label for each in programs for label in each[DETAIL]["instructions"]}
    return {
        **timing_model(instructions),
        "from": question.function or question.stablehlo or list(question.hlo),
        "settings": dict(question.settings),
        "num_slices": question.num_slices,
        "interval_s": [sum(each["interval_s"][side] for each in programs) for side in (0, 1)],
        "exposed_s": sum(each["exposed_s"] for each in programs),
        "at_least_s": sum(each["at_least_s"] for each in programs),
        "bounded_share": sum(seconds.values()) / total if total else 0.0,
        "unestimated_by_label_s": dict(seconds),
        "unestimated_instructions": dict(counts),
        "programs": [dict(each) for each in programs],
    }

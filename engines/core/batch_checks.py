"""Do the keys about prompts of different lengths and about pipelines go together?"""

from typing import TYPE_CHECKING

from engines.core.errors import InvalidRequest

if TYPE_CHECKING:
    from engines.core.point import Point


def check_batch(point: "Point") -> None:
    """What :meth:`engines.core.point.Point.check` checks of lengths, padding, micro-batches and sequence parallelism.

    Raises:
        InvalidRequest: two values contradict each other.
    """
    _check_lengths(point)
    _check_pipeline(point)
    _check_methods(point)


def _check_methods(point: "Point") -> None:
    """No engine has such a program; none of these pairs would be a contradiction."""
    for key, off, how in (
        ("lengths", "equal", "from prompts of different lengths"),
        ("micro_batches", None, "in micro-batches of a pipeline"),
    ):
        for other, other_off in (("speculative", "none"), ("exit_threshold", None), ("shardings", None)):
            if getattr(point, key) == off or getattr(point, other) == other_off:
                continue
            problem = f"no engine runs {other}={getattr(point, other)} {how}"
            remedy = f"{_unset(key, off)}, or {_unset(other, other_off)}"
            raise InvalidRequest(key, getattr(point, key), problem, remedy)


def _unset(key: str, off: str | None) -> str:
    return f"leave {key} out" if off is None else f"use {key}={off}"


def _check_pipeline(point: "Point") -> None:
    """Micro-batches are those of a pipeline, and sequence parallelism is that of tensor-parallel ranks."""
    count = point.micro_batches
    if count is not None and point.pipeline_degree == 1:
        raise InvalidRequest(
            "micro_batches", count, "is about a pipeline, and pipeline_parallel=1", "use pipeline_parallel=2 or more"
        )
    if count is not None and count > point.batch_size:
        raise InvalidRequest(
            "micro_batches",
            count,
            f"has no sequence for some of them, as batch_size={point.batch_size}",
            f"use at most {point.batch_size}",
        )
    without_ranks = point.chip.kind == "tpu" and point.pipeline_degree == 1
    if point.sequence_parallel != "none" and (point.tensor_degree == 1 or without_ranks):
        where = f"hw={point.chip.name}" if without_ranks else "tensor_parallel=1"
        raise InvalidRequest(
            "sequence_parallel",
            point.sequence_parallel,
            f"splits tokens over tensor-parallel ranks, and {where}",
            "use sequence_parallel=none",
        )


def _check_lengths(point: "Point") -> None:
    """Prompts of different lengths need prompts."""
    if point.lengths == "equal":
        return
    if point.input_len == 0 or point.phase == "serve":
        raise InvalidRequest(
            "lengths", point.lengths, "is about prompts, and input_len=0", "use input_len ≥ 1, or lengths=equal"
        )

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
    """Methods that propose tokens, leave early or plan every operator have programs of their own."""
    for key, asked in (("lengths", point.lengths != "equal"), ("micro_batches", point.micro_batches is not None)):
        for other, off in (("speculative", "none"), ("exit_threshold", None), ("shardings", None)):
            if asked and getattr(point, other) != off:
                raise InvalidRequest(
                    key,
                    getattr(point, key),
                    f"does not go with {other}={getattr(point, other)}",
                    "use one alone",
                )


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

"""Are the keys of a server under load consistent, and asked of a point that is one?"""

from typing import TYPE_CHECKING, Final

from engines.core.errors import InvalidRequest

if TYPE_CHECKING:
    from engines.core.point import Point

IMPORTED: Final = "imported"
"""The engine of rows that another harness measured."""
SERVING: Final = "serving"
"""The engine that has a client send requests to a server."""
OF_A_LOAD: Final = ("request_rate_per_s", "num_requests", "ttft_limit_s", "tpot_limit_s")
"""Keys of a point that say what a server is sent, and what its answers are held to."""
LIMITS: Final = ("ttft_limit_s", "tpot_limit_s")


def check_serve(point: "Point") -> None:
    """Check the phase ``serve`` and its keys.

    Raises:
        InvalidRequest: a static batch has a key of a load, an engine serves that cannot, no batch or length is stated,
            or the requests in flight are bounded where the largest rate is looked for.
    """
    if point.phase != "serve":
        for key in OF_A_LOAD:
            if getattr(point, key) is not None:
                raise InvalidRequest(
                    key, getattr(point, key), f"is of a server under load and phase={point.phase}", "use phase=serve"
                )
        if point.engine == SERVING:
            raise InvalidRequest(
                "phase", point.phase, f"is no load, and engine={SERVING} has no other", "use phase=serve"
            )
        return
    if point.engine not in (IMPORTED, SERVING):
        raise InvalidRequest(
            "phase",
            point.phase,
            f"is a server under load and engine={point.engine} runs batches",
            f"use engine={SERVING}, import another harness's file, or use phase=prefill, decode or generate",
        )
    if point.engine == SERVING:
        _check_load(point)


def is_knee(point: "Point") -> bool:
    """Whether the largest rate under limits is looked for."""
    return point.request_rate_per_s is None and any(getattr(point, key) is not None for key in LIMITS)


def _check_load(point: "Point") -> None:
    for key in ("input_len", "output_len"):
        if getattr(point, key) < 1:
            raise InvalidRequest(key, getattr(point, key), "is no length of a request", "use 1 or more")
    if point.tpot_limit_s is not None and point.output_len < 2:
        raise InvalidRequest(
            "tpot_limit_s",
            point.tpot_limit_s,
            "is of tokens after the first and output_len=1",
            "use output_len=2 or more",
        )
    if is_knee(point) and point.batch_size:
        raise InvalidRequest(
            "batch_size",
            point.batch_size,
            "bounds the requests in flight, so that those that wait have no time to first token yet",
            "use batch_size=0 to look for the largest rate, or give request_rate_per_s",
        )
    if point.request_rate_per_s is None and not is_knee(point) and not point.batch_size:
        raise InvalidRequest(
            "request_rate_per_s",
            "auto",
            "is no rate, has no limit to be the most under, and batch_size=0 bounds no requests in flight",
            "give request_rate_per_s, ttft_limit_s, tpot_limit_s or batch_size",
        )

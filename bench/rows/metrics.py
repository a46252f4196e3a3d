"""The registry of metrics: every figure of a row with its formula, heading and unit.

Rows, W&B keys, table headings and the documentation use :data:`METRICS`, so a figure means the same everywhere. A row
has SI units and fractions under the metric's ``name``; only printed tables scale them (``MFU (%)``).
"""

from typing import Final

from bench.rows.derived_metrics import DERIVED
from bench.rows.metric import Basis, Metric
from bench.rows.observed_metrics import OBSERVED
from bench.rows.read_metrics import AT_READ
from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.core.pruning import as_run

METRICS: Final[dict[str, Metric]] = {**DERIVED, **AT_READ, **OBSERVED}
"""Name → metric: first the derived, then those that a row has when it is read, then the observed ones."""


def derive(
    point: Point,
    *,
    latency_s: float,
    prefill_s: float | None = None,
    decode_s: float | None = None,
    peak_flops_per_s: float | None = None,
    hbm_bytes_per_s: float | None = None,
    matmul_flops_per_s: float | None = None,
    copy_bytes_per_s: float | None = None,
    tokens: int | None = None,
    cached_tokens: int | None = None,
    mean_layers: float | None = None,
) -> dict[str, float | None]:
    """Every derived metric of one result; None if one of its inputs is unknown or the phase does not have it.

    ``latency_s`` is the total of the phase in seconds, ``prefill_s`` and ``decode_s`` the totals of its stages. A
    prefill or decode point has one stage, which defaults to ``latency_s``; of a generate point, one stage determines
    the other. Peaks are per chip: the dense peak of ``point.act_dtype`` in FLOP/s and the memory bandwidth in bytes/s,
    and the measured rates of a matmul and a copy. ``tokens`` and ``cached_tokens`` (:class:`Basis`) default to the
    point's, ``mean_layers`` to all layers.

    Raises:
        InvalidRequest: a time or a peak is not positive.
    """
    for key, value in (
        ("latency_s", latency_s),
        ("prefill_s", prefill_s),
        ("decode_s", decode_s),
        ("peak_flops_per_s", peak_flops_per_s),
        ("hbm_bytes_per_s", hbm_bytes_per_s),
        ("matmul_flops_per_s", matmul_flops_per_s),
        ("copy_bytes_per_s", copy_bytes_per_s),
    ):
        if value is not None and not value > 0:
            raise InvalidRequest(key, value, "must be a number > 0", "fix the engine that returned it")
    if point.phase == "prefill":
        prefill_s, decode_s = latency_s, None
    elif point.phase == "decode":
        prefill_s, decode_s = None, latency_s if decode_s is None else decode_s
    elif decode_s is None and prefill_s is not None and prefill_s < latency_s:
        decode_s = latency_s - prefill_s
    elif prefill_s is None and decode_s is not None and decode_s < latency_s:
        prefill_s = latency_s - decode_s
    done: dict[str, float | None] = {}
    basis = Basis(
        point=as_run(point),
        tokens=point.tokens if tokens is None else tokens,
        cached_tokens=point.batch_size * point.input_len if cached_tokens is None else cached_tokens,
        latency_s=latency_s,
        prefill_s=prefill_s,
        decode_s=decode_s,
        peak_flops_per_s=peak_flops_per_s,
        hbm_bytes_per_s=hbm_bytes_per_s,
        matmul_flops_per_s=matmul_flops_per_s,
        copy_bytes_per_s=copy_bytes_per_s,
        mean_layers=mean_layers,
        done=done,
    )
    for name, metric in DERIVED.items():
        if metric.compute is not None:
            done[name] = metric.compute(basis)
    return done

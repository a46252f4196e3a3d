"""Nights of a few points, with what nights have: a step, a drift, failures, another host, several processes."""

import math

import numpy as np

from bench.rows.store import Store
from builders.rows import a_row

NIGHTS = 14
STEP = 9
"""The night of the step of 10%."""


def night(number):
    """The date of a night."""
    return f"2026-02-{number + 1:02}"


def write_nights(folder, nights=NIGHTS):
    """Fill ``folder`` with one store a night: three points measured by three processes, one compiled, two predicted.

    Batch 1 is quiet, batch 2 is 10% slower from :data:`STEP` on, batch 4 fails on the last two nights; a point of
    another host is new on the last night.
    """
    generator = np.random.default_rng(7)
    for number in range(nights):
        rows = []
        where = {"host": "one", "device_kind": "cpu", "git_sha": ("a" if number < STEP else "b") * 40}
        for size in (1, 2, 4):
            time = 0.01 * size * (1.1 if size == 2 and number >= STEP else 1.0)
            failed = size == 4 and number >= nights - 2
            for process in range(3):
                samples = time * np.exp(generator.normal(0, 0.004) + generator.normal(0, 0.01, 12))
                rows.append(_measured(number, process, size, None if failed else samples.tolist(), where))
        rows.append(_computed("compiled", "compiled", 0.018 * (1.02 if number >= 5 else 1), number))
        rows += [_computed("predicted", "analytic", 0.016, number), _computed("predicted", "analytic", 0.08, number, 8)]
        if number == nights - 1:
            rows.append(_measured(number, 0, 2, [0.02] * 5, where | {"host": "two"}))
        Store(folder / night(number)).append(rows)
    return folder


def _measured(number, process, size, samples, where):
    made = f"{night(number)}T0{process}:00:00.000+00:00"
    common = {
        **where,
        "weight_dtype": "float32",
        "batch_size": size,
        "created_at": made,
        "point_id": f"m{size}",
        "program_id": f"p{size}",
    }
    if samples is None:
        return a_row(**common, status="failed", error="crashed <b>hard</b>")
    middle = float(np.median(samples))
    ends = {"ci_low": middle * math.exp(-0.01), "ci_high": middle * math.exp(0.01), "ci_level": 0.95}
    return a_row(**common, **ends, latency_s=middle, samples_s=samples, valid=True, versions={"jax": "0.10.2"})


def _computed(source, engine, time, number, size=2):
    made = f"{night(number)}T04:00:00.000+00:00"
    ends = {"latency_low_s": time * 0.8, "latency_high_s": time * 1.2} if source == "predicted" else {}
    content = {
        "weight_dtype": "float32",
        "source": source,
        "engine": engine,
        "latency_s": time,
        "valid": True,
        "batch_size": size,
        **ends,
    }
    return a_row(created_at=made, point_id=f"{engine}{size}", **content)

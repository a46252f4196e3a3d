"""Rows as the harness makes them: what was published, what is predicted for it, and a small measured sweep."""

import pytest
from builders.points import point
from builders.published import newest_rows

from bench.report.studies.registry import STUDIES
from bench.report.studies.rows import points_of
from bench.rows.metrics import derive
from bench.run.make_row import PointTask, estimated
from engines.analytic.engine import AnalyticEngine
from engines.core.row import POINT_FIELDS, Row
from engines.published.engine import PublishedEngine


def estimates(engine, questions):
    points = [point(engine=engine.name, **question) for question in questions]
    return [
        estimated(PointTask(point=of, point_id=of.fingerprint(engine.name), source=engine.source, sweep=None), estimate)
        for of, estimate in zip(points, engine.estimate(points), strict=True)
    ]


def make_measured(seconds, *, valid=True, relative_interval=0.02, **changes):
    asked = {
        "model": "tiny",
        "hw": "cpu",
        "num_chips": 8,
        "phase": "decode",
        "batch_size": 8,
        "input_len": 32,
        "output_len": 8,
        "weight_dtype": "float32",
    } | changes
    of = point(engine="jax", **asked)
    axes = {key: value for key, value in of.axes().items() if key in POINT_FIELDS}
    return Row(
        **axes,
        **derive(of, latency_s=seconds, peak_flops_per_s=1e11, hbm_bytes_per_s=1e10),
        point_id=of.fingerprint("jax"),
        source="measured",
        status="ok",
        valid=valid,
        invalid_reason=None if valid else "95% interval is ±12.0% of the median, more than ±5.0%, after 30 samples",
        median=seconds,
        ci_low=seconds * (1 - relative_interval),
        ci_high=seconds * (1 + relative_interval),
        ci_level=0.95,
        n=30,
        peak_flops_per_s=1e11,
        peak_source="matmul of the same run",
        host="a-host",
        versions={"jax": "0.10.2"},
    )


@pytest.fixture(scope="session")
def published():
    return estimates(PublishedEngine(), [row.stated for row in newest_rows()])


@pytest.fixture(scope="session")
def predicted():
    questions = [dict(row.stated) for row in newest_rows()]
    for batch_size in (1, 16, 256):
        for num_chips in (16, 64, 256):
            common = {"hw": "tpu-v4", "num_chips": num_chips, "batch_size": batch_size, "weight_dtype": "int8"}
            for model in ("palm-8b", "palm-62b"):
                decode = {"phase": "decode", "input_len": 1984, "output_len": 64}
                prefill = {"phase": "prefill", "input_len": 2048, "output_len": 0}
                questions += [{"model": model, **common, **decode}, {"model": model, **common, **prefill}]
    return estimates(AnalyticEngine(), questions)


@pytest.fixture(scope="session")
def measured():
    rows = []
    for num_chips in (2, 8):
        for batch_size in (8, 16):
            for place, layout in enumerate(("ws_1d", "ws_2d")):
                seconds = 0.008 * num_chips + 0.001 * batch_size * (1 + place)
                rows.append(
                    make_measured(
                        seconds, num_chips=num_chips, batch_size=batch_size, ffn_layout=layout, attn_sharding="heads"
                    )
                )
    rows.append(make_measured(0.5, valid=False, batch_size=16, ffn_layout="ws_2d", attn_sharding="batch"))
    return rows


@pytest.fixture(scope="session")
def rows(published, predicted, measured):
    return [*published, *predicted, *measured]


@pytest.fixture
def measure():
    return make_measured


@pytest.fixture(scope="session")
def points():
    """Those of every study, by its recipe; a recipe takes a while to read."""
    return {study.recipe: points_of(study.recipe, study.variants) for study in STUDIES}

"""The closed forms answer a fixed grid as their version says, with constants that no calibration changes."""

from dataclasses import fields
from itertools import product
from pathlib import Path

from versioned_answers import check, rounded

from engines.analytic.constants import Constants
from engines.analytic.engine import CLOSED_FORM_VERSION, AnalyticEngine
from engines.core.extension import EXTENSION
from engines.core.layout import FFN_LAYOUTS
from engines.core.point import Point

TABLE = Path(__file__).with_name("data") / "closed_form_answers.json"
CONSTANTS = Constants(
    matmul_efficiency=0.85,
    half_width=256.0,
    hbm_efficiency=0.8,
    roofline_overlap=0.5,
    link_efficiency=0.75,
    layer_s=2e-5,
    step_s=5e-4,
    collective_s=3e-6,
    hop_s=1e-6,
    sampling_s_per_logit=1e-10,
    hbm_usable=0.95,
    axis_gain=0.4,
    loop_hidden=0.6,
    network_efficiency=0.7,
    network_collective_s=3e-5,
    stage_s=2e-4,
    prefetch=0.3,
    host_layer_s=3e-5,
    host_prefill_layer_s=5e-5,
    request_s=1e-3,
    score_passes=4.0,
    vector_passes=0.8,
    cache_efficiency=0.9,
    kv_reread=0.4,
    attention_matmul=0.9,
    stream_16bit=0.95,
    stream_int8=0.8,
    matmul_16bit=0.97,
    prefill_tokens=8192.0,
    cache_grows=1.0,
    all_logits=1.0,
)
LATER = {each.name: each.default for each in fields(Point) if each.metadata.get(EXTENSION) is True}
"""Keys that stand in an answer's name only where they are not at their default, so that a new one renames none."""
PHASES = {"prefill": (2048, 0), "decode": (1984, 64), "generate": (60, 20)}


def asked(make_point):
    """Models of every block and attention; a torus of three axes and of two; one node, several, and stages."""
    slices = [
        {"hw": "tpu-v4", "num_chips": 64},
        {"hw": "tpu-v5e", "num_chips": 16, "collectives": "auto"},
        {"hw": "a100-80gb", "num_chips": 16, "tensor_parallel": 8},
        {"hw": "h100-80gb", "num_chips": 8},
    ]
    for model, where, phase, batch in product(["palm-62b", "gpt-20b", "llama-3-70b"], slices, PHASES, [1, 64]):
        input_len, output_len = PHASES[phase]
        keys = {"model": model, **where, "phase": phase, "batch_size": batch}
        keys |= {"first_token": "prefill"} if phase == "generate" and "tpu" not in where["hw"] else {}
        yield make_point(**keys, input_len=input_len, output_len=output_len)
    for layout, variant in product(FFN_LAYOUTS, ["plain", "oneway", "throughput", "latency"]):
        for attention in ("heads", "batch"):
            yield make_point(ffn_layout=layout, attn_sharding=attention, collectives=variant, weight_dtype="int8")


def test_the_version_stands_for_the_answers(make_point, monkeypatch):
    monkeypatch.setattr("engines.analytic.grid.constants_of", lambda chip: CONSTANTS)
    points = list(asked(make_point))
    answers = {}
    for point, found in zip(points, AnalyticEngine().estimate(points), strict=True):
        given = {key: value for key, value in point.axes().items() if key not in LATER or value != LATER[key]}
        stated = sorted((key, value) for key, value in given.items() if value not in (None, "auto"))
        name = " ".join(f"{key}={value}" for key, value in stated)
        figures = (found.latency_s, found.ttft_s, found.step_time_s, found.facts.peak_hbm_bytes)
        answers[name] = [rounded(each) for each in figures if each is not None]
    assert len(answers) == len(points)
    check(TABLE, "CLOSED_FORM_VERSION", CLOSED_FORM_VERSION, answers)


def test_calibrated_constants_are_part_of_what_ran(make_point, monkeypatch):
    engine, point = AnalyticEngine(), make_point()
    before = engine.program_id(point)
    assert before == engine.program_id(make_point(batch_size=8)) != engine.program_id(make_point(hw="a100-80gb"))
    monkeypatch.setattr("engines.analytic.engine.constants_of", lambda chip: CONSTANTS)
    assert engine.program_id(point) != before

"""Which system of the field a row is, and what the report says of all."""

import pytest

from bench.report.field.report import field_report, setting_of
from bench.report.field.systems import RULES, system_of
from bench.sweep.catalog import load_group
from engines.core.errors import ShardbenchError
from engines.core.row import Row


def row(**changes):
    asked = {"model": "palm-540b", "hw": "tpu-v4", "num_chips": 64, "engine": "analytic", "phase": "decode"}
    sizes = {"batch_size": 64, "input_len": 1984, "output_len": 64, "weight_dtype": "bfloat16", "runtime": "best"}
    answer = {"source": "predicted", "status": "ok", "valid": True, "latency_s": 1.0, "step_time_s": 0.02}
    return Row(**{**asked, **sizes, **answer, "cost_chip_s_per_token": 0.01, "sweep": "field", **changes})


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "Pope et al. 2022"),
        ({"weight_dtype": "int8"}, "Pope et al. 2022, int8"),
        ({"partitioner": "gspmd"}, "GSPMD"),
        ({"partitioner": "gspmd", "planner": "alpa"}, "Alpa"),
        ({"ffn_layout": "ws_1d"}, "NeMo Megatron"),
        ({"ffn_layout": "ws_1d", "chosen": ["ffn_layout"]}, "Pope et al. 2022"),
        ({"offload": "host"}, "ZeRO-Inference (host)"),
        ({"pruning": "columns:0.5"}, "Pruned (columns:0.5)"),
        ({"lengths": "lognormal", "padding": "packed"}, "EffectiveTransformer (packed, lognormal lengths)"),
        ({"speculative": "ngram", "acceptance_rate": 0.7}, "Speculative decoding (ngram, 70% accepted)"),
        ({"speculative": "ngram", "acceptance_rate": 0.7, "source": "measured"}, "Speculative decoding (ngram)"),
        ({"exit_threshold": 0.5}, "Early exit (from 0.5)"),
        ({"model": "palm-62b"}, "Distilled (PaLM 62B)"),
        ({"source": "published", "engine": "published", "system": "paper"}, "paper, published"),
        ({"hw": "h100-80gb", "runtime": "vllm"}, "vLLM"),
        ({"hw": "h100-80gb", "tensor_parallel": 8}, "best known stack"),
        ({"hw": "h100-80gb", "runtime": "gpt-fast"}, "gpt-fast"),
    ],
)
def test_a_row_stands_under_its_system(changes, name):
    assert system_of(row(**changes)) == name


def test_every_rule_is_met_by_some_point_of_the_sweeps():
    points = [point for name in ("field", "field-measured") for point in load_group("sweep", name)["points"]]
    text = str(points)
    wanted = ("speculative", "exit_threshold", "lengths", "offload", "pruning", "planner", "gspmd", "ws_1d", "switch")
    assert all(word in text for word in wanted)
    assert len(RULES) == 11


def test_kinds_of_evidence_and_settings_are_told_apart():
    rows = [
        row(),
        row(source="compiled", engine="compiled", step_time_s=0.03),
        row(partitioner="gspmd", cost_chip_s_per_token=0.02),
        row(pruning="layers:0.5", step_time_s=0.001, cost_chip_s_per_token=0.001),
        row(model="tiny", hw="cpu", num_chips=8, source="measured", engine="jax", sweep="field-measured"),
        row(status="oom", valid=False, error="needs more", latency_s=None, step_time_s=None),
        row(sweep="palm"),
    ]
    made = field_report(rows, "The field")
    titles = [section.title for section in made.sections]
    assert titles == ["Evidence", setting_of(rows[0]), setting_of(rows[4]), "What has no time"]
    lines = made.sections[1].tables[0].rows
    assert {(line["system"], line["source"]) for line in lines} == {
        ("Pope et al. 2022", "predicted"),
        ("Pope et al. 2022", "compiled"),
        ("GSPMD", "predicted"),
        ("Pruned (layers:0.5)", "predicted"),
    }
    # What changes the model wins no comparison.
    assert "Pope et al. 2022 is fastest, 20" in made.findings[0].sentence
    assert made.sections[3].tables[0].rows[0]["error"] == "needs more"


def test_a_store_without_the_field_says_what_to_run():
    with pytest.raises(ShardbenchError, match=r"\+sweep=field"):
        field_report([row(sweep="palm")], "The field")

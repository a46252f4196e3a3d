"""Which system of the field a row is, and what the report says of all."""

import pytest

from bench.report.field.figure import field_figure
from bench.report.field.report import field_report
from bench.report.field.systems import FAMILIES, RULES, family_of, quality_of, system_of
from bench.report.field.table import setting_of, split_of, systems_table
from bench.report.render import style
from bench.rows.at_read import with_dollars
from bench.rows.prices import Prices
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
        ({"exit_threshold": 0.9, "exit_rate": 0.2}, "Early exit (from 0.9, 20% leave)"),
        ({"model": "palm-62b"}, "Distilled (PaLM 62B)"),
        ({"source": "published", "engine": "published", "system": "paper"}, "paper, published"),
        ({"hw": "h100-80gb", "runtime": "vllm"}, "vLLM"),
        ({"hw": "h100-80gb", "tensor_parallel": 8}, "best known stack"),
        ({"hw": "h100-80gb", "runtime": "gpt-fast"}, "gpt-fast"),
        ({"hw": "cpu", "runtime": "torch-eager", "engine": "torch", "tensor_parallel": 8}, "PyTorch, tensor parallel"),
        ({"model": "palm-540b-multihead"}, "Multihead attention (PaLM 540B multihead)"),
        (
            {"model": "llama-3-70b-multihead", "hw": "h100-80gb", "runtime": "fastertransformer"},
            "Multihead attention (Llama 3 70B multihead, FasterTransformer)",
        ),
    ],
)
def test_a_row_stands_under_its_system(changes, name):
    assert system_of(row(**changes)) == name


@pytest.mark.parametrize(
    ("changes", "quality"),
    [
        ({}, "the same"),
        ({"speculative": "ngram", "acceptance_rate": 0.7}, "the same"),
        ({"weight_dtype": "int8"}, "not known"),
        ({"weight_dtype": "int8", "kl_divergence": 0.00025}, "KL 0.00025 nats"),
        ({"pruning": "layers:0.5"}, "not known"),
        ({"pruning": "layers:0.5", "quality_kl": 0.97, "quality_agreement": 0.044}, "KL 0.97 nats, 4% agree"),
        ({"exit_threshold": 0.5}, "not known"),
        ({"model": "palm-62b"}, "not known"),
        ({"quality_perplexity": 3.77}, "perplexity 3.77"),
    ],
)
def test_what_changes_the_text_says_how_far_or_that_nobody_knows(changes, quality):
    assert quality_of(row(**changes)) == quality


def test_a_plan_of_every_operator_is_told_in_words():
    text = "attention:zxy.-/fused.columns:z.yx/fused.in:-.z.yx/fused.in.weights:z.yx/fused.joined:z.yx"
    text += "/fused.out:-.yx.z/fused.out.weights:yx.z/residual:xy.z/table:-.zyx"
    planned = row(planner="alpa", partitioner="gspmd", shardings=text)
    assert split_of(planned) == "matmuls in z→yx, out yx→z, attention over batch zxy"
    assert split_of(row(tensor_parallel=4, pipeline_parallel=2)) == "PP2/TP4"


def test_a_system_has_one_line_with_its_fastest_and_its_cheapest_point():
    fast = row(batch_size=4, step_time_s=0.01, cost_chip_s_per_token=0.16)
    cheap = row(batch_size=64, step_time_s=0.04, cost_chip_s_per_token=0.04)
    slow = row(batch_size=512, step_time_s=0.06, cost_chip_s_per_token=0.008)  # beyond 50 ms
    prices = Prices(name="mine", terms="own", source="us", date="2026-01-31", usd_per_chip_hour={"tpu-v4": 3.6})
    rows = [with_dollars(each, prices) for each in (slow, cheap, fast)]
    [line] = systems_table("t", "t", {"here": rows}).rows
    assert (line["fast_batch"], line["fast"], line["batch"], line["cost"]) == (4, 0.01, 64, 0.04)
    assert line["usd"] == pytest.approx(0.04 * 1e6 * 3.6 / 3600)
    plain = systems_table("t", "t", {"here": [slow, cheap, fast]})
    assert "usd" not in [column.key for column in plain.columns]
    # At 3.60 USD an hour, a chip-ms a token is a dollar for a million.
    pytest.importorskip("matplotlib")
    with style.settings():
        figure = field_figure("here", rows).figure
        (right,) = figure.axes[0].child_axes
        figure.draw_without_rendering()
        assert right.get_ylim() == pytest.approx(figure.axes[0].get_ylim())
        assert not field_figure("here", [slow, cheap, fast]).figure.axes[0].child_axes


def test_a_panel_has_the_systems_of_one_kind_and_all_others_in_grey():
    rows = [row(), row(weight_dtype="int8"), row(offload="host"), row(speculative="ngram"), row(pruning="2:4")]
    assert [family_of(each) for each in rows] == list(FAMILIES)
    pytest.importorskip("matplotlib")
    with style.settings():
        axes = field_figure("here", rows).figure.axes
    assert [axis.get_title(loc="left") for axis in axes[:5]] == list(FAMILIES)
    assert all(len(axis.get_lines()) == len(rows) for axis in axes[:5])


def test_every_rule_is_met_by_some_point_of_the_sweeps():
    points = [point for name in ("field", "field-measured") for point in load_group("sweep", name)["points"]]
    text = str(points)
    wanted = ("speculative", "exit_threshold", "lengths", "offload", "pruning", "planner", "gspmd", "ws_1d", "switch")
    assert all(word in text for word in wanted)
    assert len(RULES) == 11


def test_every_system_of_a_sweep_over_another_model_is_told_apart():
    """As ``+sweep=field model=mixtral-8x22b`` asks them: what told two systems of a dense model apart still does."""
    asked = [
        {},
        {"weight_dtype": "int8"},
        {"partitioner": "gspmd"},
        {"planner": "alpa"},
        {"pruning": "2:4"},
        {"exit_threshold": 0.9},
        *({"hw": "h100-80gb", "runtime": name} for name in ("vllm", "tensorrt-llm", "gpt-fast", "megatron")),
        {"hw": "h100-80gb", "runtime": "vllm", "weight_dtype": "int8"},
    ]
    for model in ("palm-540b", "mixtral-8x22b", "palm-62b", "llama-3-70b-multihead"):
        assert len({system_of(row(model=model, **each)) for each in asked}) == len(asked)


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

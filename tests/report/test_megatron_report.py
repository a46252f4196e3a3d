"""Megatron beside FasterTransformer, published and predicted, and measured pipelines."""

import pytest

from bench.report.megatron.report import beside, megatron_report, sequence_parallel
from bench.report.render import style
from engines.core.errors import ShardbenchError
from engines.core.row import Row


def row(runtime, source, latency_s, **changes):
    asked = {"model": "gpt-175b", "hw": "a100-80gb", "num_chips": 8, "engine": "analytic", "phase": "generate"}
    sizes = {"batch_size": 8, "input_len": 128, "output_len": 8, "weight_dtype": "float16", "tensor_parallel": 8}
    answer = {"source": source, "status": "ok", "valid": True, "latency_s": latency_s, "sweep": "megatron"}
    return Row(**{**asked, **sizes, **answer, "runtime": runtime, "pipeline_parallel": 1, **changes})


ROWS = [
    row("megatron", "published", 1.7),
    row("megatron", "predicted", 1.6),
    row("fastertransformer", "published", 0.85),
    row("fastertransformer", "predicted", 0.8),
    row("megatron", "published", 0.6, batch_size=1),
    row("fastertransformer", "published", 0.5, batch_size=1),
    row("best", "predicted", 2.0, num_chips=16, pipeline_parallel=2),
    row("best", "predicted", 1.5, num_chips=16, pipeline_parallel=2, sequence_parallel="norms"),
    row(None, "measured", 0.01, model="tiny-gpt", hw="cpu", engine="torch", max_relative_error=2e-6),
    row(None, "measured", 0.02, model="tiny-gpt", hw="cpu", engine="jax", max_relative_error=1e-6),
    row(None, "measured", 0.02, model="tiny-gpt", hw="cpu", engine="jax", max_relative_error=1.0, valid=False),
]


def test_programs_of_one_batch_share_a_line():
    lines = {line["batch"]: line for line in beside(ROWS[:6]).rows}
    assert lines[8]["ratio"] == 2.0
    assert lines[1]["ratio"] == pytest.approx(1.2)
    assert lines[8]["fastertransformer predicted"] == 0.8
    assert "megatron predicted" not in lines[1]


def test_what_sequence_parallelism_saves_is_of_points_that_differ_in_it_alone():
    [line] = sequence_parallel(ROWS).rows
    assert (line["split"], line["saved"]) == ("PP2/TP8", 0.25)


def test_the_report_has_all_three():
    made = megatron_report(ROWS, "Megatron")
    assert [section.title for section in made.sections] == [
        "Published and predicted",
        "Sequence parallelism",
        "Measured pipelines",
    ]
    published, measured = made.findings
    assert (published.numbers["least"], published.numbers["most"]) == (pytest.approx(1.2), 2.0)
    assert "jax and torch ran 2 points" in measured.sentence
    assert measured.numbers["worst_relative_error"] == 2e-6
    pytest.importorskip("matplotlib")
    with style.settings():
        [drawn] = made.front.draw()
    assert len(drawn.figure.axes[0].get_lines()) == 4


def test_without_its_rows_the_command_is_named():
    with pytest.raises(ShardbenchError, match=r"\+sweep=megatron"):
        megatron_report([], "Megatron")

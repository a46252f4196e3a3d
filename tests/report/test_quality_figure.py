"""Speed against quality of smaller models, in the report."""

import pytest

from bench.report.main.quality import method, quality_figure, quality_finding, quality_table, share, with_quality
from engines.core.row import Row


def row(**changes):
    asked = {"model": "bytes-1.8m", "hw": "cpu", "num_chips": 1, "engine": "jax", "phase": "decode", "batch_size": 8}
    answer = {"input_len": 64, "output_len": 32, "source": "measured", "status": "ok", "valid": True, "latency_s": 1.0}
    figures = {"weight_dtype": "float32", "tokens_per_s": 100.0, "quality_kl": 0.1, "quality_perplexity": 4.0}
    return Row(**{**asked, **answer, **figures, **changes})


def test_only_measured_rows_with_a_quality_are_shown():
    shown = [row(), row(pruning="columns:0.5"), row(quality_kl=None)]
    left = [
        row(source="predicted"),
        row(quality_kl=None, quality_perplexity=None),
        row(status="failed", valid=False),
        row(valid=False),
    ]
    assert with_quality([*shown, *left]) == shown
    assert quality_table(left) is None
    assert quality_figure([row()]) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ("bytes-1.8m", "")),
        ({"details": {"checkpoint": "student@ce68"}}, ("bytes-1.8m (student)", "")),
        ({"pruning": "heads:0.25"}, ("pruned heads", "0.25")),
        ({"pruning": "2:4"}, ("pruned 2:4", "")),
        ({"pruning": "columns:0.5+2:4"}, ("pruned columns+2:4", "0.5")),
        ({"weight_dtype": "int8"}, ("bytes-1.8m, int8", "")),
    ],
)
def test_a_mark_says_what_was_done_to_the_model(changes, told):
    assert (method(row(**changes)), share(row(**changes))) == told


def test_a_line_says_what_was_done_to_the_model_and_what_it_cost():
    rows = [row(), row(pruning="columns:0.5", details={"pruning_by": "activation"}, quality_kl=0.2)]
    table = quality_table(rows)
    assert [line["by"] for line in table.rows] == [None, "activation"]
    assert [line["quality_kl"] for line in table.rows] == [0.1, 0.2]
    axis = quality_figure(rows).figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["0.5"]
    assert [line.get_marker() for line in axis.get_lines()] == ["o", "s"]
    assert axis.get_ylabel() == "perplexity of held-out text"
    without = [row(quality_perplexity=None), row(pruning="2:4", quality_perplexity=None)]
    assert "KL" in quality_figure(without).figure.axes[0].get_ylabel()


def test_the_finding_is_the_fastest_of_those_that_are_nearly_as_good():
    rows = [
        row(quality_perplexity=4.0, tokens_per_s=100.0),
        row(pruning="columns:0.25", quality_perplexity=4.3, tokens_per_s=150.0),
        row(model="bytes-0.4m", quality_perplexity=4.2, tokens_per_s=300.0),
        row(pruning="heads:0.5", quality_perplexity=9.0, tokens_per_s=900.0),
    ]
    [found] = quality_finding(rows)
    assert found.numbers == {"speed_up": 3.0, "perplexity": 4.2}
    assert (
        "bytes-0.4m makes 3 times the tokens a second of bytes-1.8m, with a perplexity of 4.2 against 4"
        in found.sentence
    )
    assert quality_finding(rows[:1]) == quality_finding([]) == []

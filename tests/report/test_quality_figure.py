"""Speed against quality of smaller models, in the report."""

import pytest

from bench.report.main.quality import (
    family,
    method,
    quality_figure,
    quality_finding,
    quality_table,
    share,
    with_quality,
)
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
        ({"weight_dtype": "int8"}, ("bytes-1.8m, int8", "int8")),
        ({"pruning": "columns:0.5", "weight_dtype": "int8"}, ("pruned columns, int8", "0.5")),
        (
            {"weight_dtype": "int4", "weight_group_size": 64},
            ("bytes-1.8m, int4 in groups of 64", "int4 in groups of 64"),
        ),
    ],
)
def test_a_mark_says_what_was_done_to_the_model(changes, told):
    assert (method(row(**changes)), share(row(**changes))) == told


def test_a_line_says_what_was_done_to_the_model_and_what_it_cost():
    told = {"checkpoint": "teacher@12", "text": "held-out.txt@34"}
    changed = row(pruning="columns:0.5", details={"pruning_by": "activation", **told}, quality_kl=0.2)
    rows = [row(details=told), changed]
    table = quality_table(rows)
    assert [line["by"] for line in table.rows] == [None, "activation"]
    assert [line["checkpoint"] for line in table.rows] == ["teacher", "teacher"]
    assert "held-out text (held-out.txt)" in table.note
    assert [line["quality_kl"] for line in table.rows] == [0.1, 0.2]
    axis = quality_figure(rows).figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["", "0.5"]
    assert [line.get_marker() for line in axis.get_lines()] == ["None", "None", "o", "s"]
    assert axis.get_ylabel() == "perplexity of held-out text, a token"
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


def test_of_equally_fast_models_the_finding_names_the_better():
    """Two checkpoints of one architecture run one program: their times differ by noise alone."""
    whole = row(quality_perplexity=4.0)
    alone, student = (
        row(model=name, quality_perplexity=perplexity, tokens_per_s=speed, ci_low=0.3, ci_high=0.34)
        for name, perplexity, speed in (("alone", 4.3, 310.0), ("student", 4.2, 300.0))
    )
    [found] = quality_finding([whole, alone, student])
    assert found.numbers == {"speed_up": 3.0, "perplexity": 4.2}


def test_number_formats_have_a_finding_a_panel_each_engine_and_one_colour():
    rows = [
        row(engine=engine, weight_dtype=weight_dtype, tokens_per_s=speed, quality_perplexity=perplexity)
        for engine in ("torch", "jax")
        for weight_dtype, speed, perplexity in (("float32", 100.0, 4.0), ("int8", 50.0, 4.0), ("int4", 25.0, 5.0))
    ]
    found = [each for each in quality_finding(rows) if each.topic == "number formats"]
    assert [each.numbers for each in found] == [{"int8": 0.5, "int4": 0.25}] * 2
    assert "with jax on cpu: int8 0.5 times the speed and 1 times the perplexity; int4 0.25" in found[0].sentence
    axes = quality_figure(rows).figure.axes
    assert [axis.get_title() for axis in axes] == ["jax", "torch"]
    assert {family(each) for each in rows} == {"bytes-1.8m", "bytes-1.8m, rounded"}

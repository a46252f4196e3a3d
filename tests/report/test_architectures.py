"""Today's architectures beside each other: frontiers, what binds, and what experts buy, from rows written by hand."""

from dataclasses import replace

import pytest

from bench.report.main import architectures as section
from bench.report.main.sections import full_report
from bench.report.render import style


@pytest.fixture
def make(predicted):
    """A predicted decode row of the sweep: its batch, step and cost, the rest from any predicted row."""
    template = next(row for row in predicted if row.phase == "decode" and row.status == "ok")

    def row(model, batch, step_s, cost, **keys):
        stated = {"hw": "tpu-v4", "num_chips": 64, "sweep": section.SWEEP, "tensor_parallel": None, "compute_s": 1.0}
        stated |= {"memory_s": 2.0, "communication_s": 1.5, "overhead_s": 0.1, "latency_s": 64 * step_s}
        stated |= {"point_id": f"{model} {batch} {keys}", "step_time_s": step_s, "cost_chip_s_per_token": cost}
        return replace(template, model=model, batch_size=batch, **{**stated, **keys})

    return row


@pytest.fixture
def rows(make):
    dense = [make("palm-62b", batch, 0.002 * batch**0.5, 0.128 / batch**0.5) for batch in (1, 4, 16, 64)]
    sparse = [make("palm-switch-16x62b", batch, 0.004, 0.256 / batch) for batch in (1, 4, 16, 64)]
    today = [make("deepseek-v3", 1, 0.01, 0.5), make("deepseek-v3", 64, 0.04, 0.02), make("deepseek-v3", 16, 0.05, 0.1)]
    return [*dense, *sparse, *today, make("llama-3-70b", 64, 0.06, 0.01), make("llama-3-70b", 1, 0.02, 0.3)]


def test_the_table_has_the_frontiers_and_what_binds(rows):
    table = section.architectures_table(rows)
    assert [(each["model"], each["batch_size"]) for each in table.rows] == [
        *(("deepseek-v3", 1), ("deepseek-v3", 64)),  # batch 16 is slower than 64 and costs more
        *(("llama-3-70b", 1), ("llama-3-70b", 64)),
    ]
    assert {each["bound_by"] for each in table.rows} == {"memory"}


def test_a_split_says_what_the_planner_chose(make):
    torus = {"mesh_shape": [4, 4, 4], "ffn_layout": "ws_2d", "attn_sharding": "batch", "expert_axes": "xyz"}
    spread = make("deepseek-v3", 1, 1, 1, **torus, latent_attention="absorbed", expert_dispatch="all_to_all")
    said = "4×4×4, ws_2d, attention by batch, absorbed, experts xyz, all-to-all"
    assert section.split_label(spread) == said
    gpus = {"tensor_parallel": 8, "pipeline_parallel": 2, "data_parallel": 8, "expert_parallel": 8}
    assert section.split_label(make("gpt-oss-120b", 1, 1, 1, **gpus)) == "PP2/TP8, dp8, ep8"


def test_equal_cost_is_interpolated_between_batches(rows):
    # At batch 4 the sparse model costs 0.064; the dense one costs 0.128/√batch, and so as much at batch 4.
    sparse = {row.batch_size: row for row in rows if row.model == section.SPARSE}
    batch, step = section.equal_cost(rows, sparse[4])
    assert batch == pytest.approx(4)
    assert step == pytest.approx(0.004)
    batch, step = section.equal_cost(rows, replace(sparse[4], cost_chip_s_per_token=0.128 / 3))
    assert batch == pytest.approx(9)
    assert step == pytest.approx(0.006)
    assert section.equal_cost(rows, sparse[1]) is None


def test_findings_are_computed_from_the_rows(rows):
    cheapest, experts = section.architectures_findings(rows)
    assert cheapest.numbers == {"DeepSeek V3 on tpu-v4": 0.02, "Llama 3 70B on tpu-v4": 0.3}
    assert experts.numbers["batch 1.ratio"] == 2
    assert experts.numbers["batch 64.ratio"] == pytest.approx(0.25)
    assert section.architectures_findings([]) == []


def test_the_figure_and_the_section_are_there_where_the_sweep_has_run(rows):
    with style.settings():
        drawn = section.architectures_figure(rows)
    [axis] = [each for each in drawn.figure.axes if each.get_visible()]
    assert axis.get_title(loc="left") == "tpu-v4, 64"
    assert section.architectures_figure([]) is None
    titles = [each.title for each in full_report(rows, "t").sections]
    assert "Today's architectures" in titles
    assert "Today's architectures" not in [
        each.title for each in full_report([replace(rows[0], sweep=None)], "t").sections
    ]


def test_compiled_points_are_lines_of_their_own_and_models_have_their_authors_names(rows, make):
    compiled = [make("deepseek-v3", batch, 0.01 * batch, 1 / batch, source="compiled") for batch in (1, 16)]
    with style.settings():
        drawn = section.architectures_figure([*rows, *compiled])
    [legend] = drawn.figure.legends
    names = {text.get_text() for text in legend.get_texts()}
    assert {"DeepSeek V3", "Llama 3 70B", "compiled", "predicted"} <= names
    lines = {
        (line.get_color(), line.get_linestyle())
        for axis in drawn.figure.axes
        for line in axis.get_lines()
        if line.get_linestyle() != "None"
    }
    assert len(lines) == 3  # two models predicted, one of them compiled
    sources = [each["source"] for each in section.architectures_table([*rows, *compiled]).rows]
    assert sources.count("compiled") == 2

"""What each operator became: matmuls against the layout, collectives against the closed form of our own program."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from builders.models import MODELS
from builders.points import point
from compiled_cases import answer_to

from bench.report.operators.report import operators_report
from bench.report.operators.rows import GSPMD, MANUAL, way_of, workloads
from bench.run.make_row import PointTask, estimated
from engines.compiled.operators import OTHER, _Product, _split, operator_of
from engines.core.layout import axes_size, layout_of
from engines.transformer.comm.volume import layer_transfers
from engines.transformer.partition.resolve import plan_of

MESH = (1, 2, 2)


def asked(**keys):
    model = replace(MODELS["llama"], d_model=256, d_ff=512, num_heads=8, num_kv_heads=4, head_dim=32, num_layers=3)
    values = {"phase": "decode", "batch_size": 16, "input_len": 60, "output_len": 4, "collectives": "plain"}
    named = {} if "shardings" in keys else {"ffn_layout": "ws_1d", "attn_sharding": "heads"}
    place = {"hw": "tpu-v4", "num_chips": 4, "mesh_shape": MESH, "engine": "compiled"}
    return point(**{**values, **named, **place, "model": model, **keys})


def told(**keys):
    answer = answer_to(asked(**keys))
    assert answer.status == "ok", answer.error
    return {each["operator"]: each for each in answer.facts.details["operators"]["decode"]}


@pytest.mark.parametrize("partitioner", ["manual", "gspmd"])
def test_a_matmul_on_a_chip_is_its_layouts_part(partitioner):
    operators, layers = told(partitioner=partitioner), 3
    across = axes_size(layout_of("ws_1d").ffn, MESH)
    for name in ("attn.in", "attn.out", "ffn.in", "ffn.out"):
        (product,) = operators[name]["matmuls"]
        assert product["runs"] == layers
        assert math.prod(product["parts"]) == 4
        assert product["parts"] == [1, 1, across] if name.endswith(".in") else [1, across, 1]
        assert operators[name]["compute_s"] > 0
    assert operators["attn.in"]["matmuls"][0]["on_chip"] == [16, 256, (8 + 2 * 4) * 32 / across]


def test_our_program_runs_the_collectives_that_its_closed_form_counts():
    plan, layers = plan_of(asked()), 3
    wanted: Counter = Counter()
    for each in layer_transfers(plan, 1):
        projection, _, side = each.what.partition(".")
        if side in ("in", "out"):
            wanted[f"{projection}.{side}"] += each.payload_bytes
    found = {
        name: sum(each["bytes"] * each["runs"] for each in operator["collectives"]) / layers
        for name, operator in told().items()
        if name in wanted
    }
    assert found == pytest.approx(dict(wanted))


def test_operators_are_named_by_the_innermost_scope():
    assert operator_of("jit(decode)/while/body/closed_call/ffn.in/tr,rc->tc/dot_general") == "ffn.in"
    assert operator_of("jit(f)/embedding/norm/mul") == "norm"
    assert operator_of("jit(f)/while/body/add") == OTHER


@pytest.mark.parametrize(
    ("product", "whole", "dims", "parts"),
    [
        (_Product(64, 4608, 1536), (64, 18432, 24576), (64, 4608, 1536), [1, 4, 16]),
        # Columns on the left, as compilers also write it.
        (_Product(1536, 4608, 64), (64, 18432, 24576), (64, 4608, 1536), [1, 4, 16]),
        (_Product(7, 5, 3), (64, 18432, 24576), (7, 5, 3), None),
    ],
)
def test_into_how_many_parts_a_matmul_is_cut(product, whole, dims, parts):
    assert _split(product, whole) == (dims, parts)


def test_the_report_shows_both_ways_beside_each_other():
    rows = []
    for partitioner in ("manual", "gspmd"):
        mine = asked(partitioner=partitioner)
        task = PointTask(point=mine, point_id=partitioner, source="compiled", sweep=None)
        rows.append(estimated(task, answer_to(mine)))
    assert [way_of(row) for row in rows] == [MANUAL, GSPMD]
    (workload,) = workloads(rows)
    assert workload.layout == "ws_1d/heads"
    document = operators_report(rows, "title")
    (times,), (operators,) = (section.tables for section in document.sections)
    assert [line["compiled_s"] for line in times.rows] == [row.step_time_s for row in rows]
    cells = {line["operator"]: line for line in operators.rows}
    assert cells["ffn.in"][MANUAL].startswith("÷1·1·4 in ")
    (finding,) = document.findings
    assert finding.numbers["ratio"] == pytest.approx(rows[1].step_time_s / rows[0].step_time_s)

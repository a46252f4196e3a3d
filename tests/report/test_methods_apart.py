"""A row of a method (pruned, speculated, offloaded, packed) never stands for the plain run of the same model."""

from dataclasses import fields, replace

from bench.report.claims.checks import check_claims
from bench.report.claims.contenders import curves
from bench.report.main.best import fastest_decode_steps
from bench.report.main.dollars import dollars_table
from bench.report.main.figure_measured import step_time_over_batch
from bench.report.main.findings import findings
from bench.rows.frontier import frontier, workloads
from bench.rows.labels import point_label
from bench.rows.methods import METHODS, PARTITIONING, WAITING, is_plain, method_label, methods_of
from bench.rows.pairing import pair_up
from engines.core.method_keys import MethodKeys
from engines.core.point_keys import PointKeys

ASKED = {
    "offload": "host",
    "offload_kv": "host",
    "pruning": "columns:0.5",
    "speculative": "draft",
    "draft_model": "palm-8b",
    "draft_len": 4,
    "draft_layers": 2,
    "acceptance_rate": 0.8,
    "exit_threshold": 0.9,
    "exit_every": 2,
    "exit_rate": 0.2,
    "planner": "alpa",
    "shardings": "a plan",
    "lengths": "uniform",
    "padding": "packed",
}
"""A value of every key of a method."""
TOPICS = ("headline", "prediction error", "held-out error", "highest MFU", "fastest decode step")


def better(row, **method):
    """The row as a method would have it, in half the time."""
    halved = {
        name: None if (value := getattr(row, name)) is None else value / 2
        for name in ("latency_s", "step_time_s", "cost_chip_s_per_token")
    }
    mfu = None if row.mfu is None else min(1.0, 2 * row.mfu)
    return replace(row, point_id=f"{row.point_id}-of-a-method", mfu=mfu, **halved, **method)


def said(rows):
    return [each for each in findings(rows, pair_up(rows)) if each.topic in TOPICS]


def test_every_key_of_a_method_is_known_to_be_one():
    new = {each.name for each in fields(MethodKeys)} - {each.name for each in fields(PointKeys)}
    assert set(METHODS) == (new - set(PARTITIONING)) | set(WAITING) == set(ASKED)


def test_nothing_said_of_plain_rows_changes_beside_faster_ones_of_methods(rows):
    asked = [{key: ASKED[key]} for key in ("pruning", "speculative", "exit_threshold", "offload", "lengths", "planner")]
    ours = [
        row for row in rows if row.source != "published"
    ]  # what another published of a method is a point of its own
    mixed = [*rows, *(better(row, **asked[place % len(asked)]) for place, row in enumerate(ours))]
    assert said(mixed) == said(rows)
    assert check_claims(mixed) == check_claims(rows)
    assert curves(mixed, pair_up(mixed)) == curves(rows, pair_up(rows))
    assert [row for row in fastest_decode_steps(mixed) if is_plain(row)] == fastest_decode_steps(rows)
    fronts = [frontier(mine) for mine in workloads(mixed).values()]
    assert [front for front in fronts if is_plain(front[0])] == [frontier(mine) for mine in workloads(rows).values()]
    assert all(len({method_label(row) for row in front}) == 1 for front in fronts)


def test_a_method_is_told_wherever_a_point_is(measured):
    plain = measured[0]
    assert is_plain(plain)
    assert method_label(plain) == ""
    for key, value in ASKED.items():
        row = replace(plain, **{key: value})
        assert methods_of(row) == {key: value}
        assert point_label(row).startswith(f"{point_label(plain)}, {key}=")
    both = replace(plain, pruning="2:4", offload="host", acceptance_rate=0.61, chosen=["acceptance_rate"])
    assert method_label(both) == "offload=host pruning=2:4"  # what was measured is no part of the question


def test_figures_of_dollars_and_steps_keep_methods_apart(measured):
    rows = [replace(row, cost_usd_per_mtok=2.0, price="mine") for row in measured]
    cheaper = [replace(better(row, pruning="2:4"), cost_usd_per_mtok=1.0) for row in rows]
    cells = dollars_table([*rows, *cheaper]).rows
    assert {(cell["method"], cell["cost_usd_per_mtok"]) for cell in cells} == {("", 2.0), ("pruning=2:4", 1.0)}
    assert "method" not in dollars_table(rows).rows[0]
    drawn = step_time_over_batch([*measured, *cheaper[:2]])
    assert drawn.caption == step_time_over_batch(measured).caption

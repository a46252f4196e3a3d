"""Servers under load in a report: a table of their own, and no part of what is said of batches."""

from dataclasses import replace

from builders.rows import a_row

from bench.dashboard import truth
from bench.report.main.sections import full_report
from bench.report.main.serving import batches, served_table
from bench.rows.frontier import frontier
from bench.rows.pairing import pair_errors, pair_up

SERVER = {
    "phase": "serve",
    "source": "published",
    "engine": "imported",
    "latency_s": None,
    "mfu": 0.99,
    "tokens_per_s": 2400.0,
    "input_len": 0,
    "load": {"ttft_s": {"median": 0.08, "p99": 0.3}, "requests_per_s": 2.0},
}


def test_servers_are_in_their_own_table_alone():
    batch = a_row()
    server = replace(batch, **SERVER, point_id="served")
    assert batches([batch, server]) == [batch]
    assert served_table([batch]) is None
    table = served_table([batch, server])
    [cells] = table.rows
    assert (cells["ttft_s.median"], cells["ttft_s.p99"], cells["requests_per_s"]) == (0.08, 0.3, 2.0)
    assert (cells["tpot_s.median"], cells["input_len"]) == (None, None)


def test_no_finding_and_no_other_section_has_a_server():
    batch = a_row()
    server = replace(batch, **SERVER, point_id="served")
    alone, both = full_report([batch], "t"), full_report([batch, server], "t")
    assert [each.sentence for each in both.findings] == [each.sentence for each in alone.findings]
    titles = [section.title for section in both.sections]
    assert set(titles) - {section.title for section in alone.sections} == {"Servers under load"}
    for section in both.sections:
        if section.title not in ("Servers under load", "Evidence", "Provenance"):
            [same] = [each for each in alone.sections if each.title == section.title]
            tables = [*section.tables, *section.linked]
            assert [table.rows for table in tables] == [table.rows for table in (*same.tables, *same.linked)]


OURS = {**SERVER, "source": "measured", "engine": "serving", "request_rate_per_s": 2.5, "ttft_limit_s": 0.1}


def test_a_server_of_ours_and_an_imported_one_are_in_no_pair_with_an_error_and_on_no_frontier():
    imported = replace(a_row(), **SERVER, point_id="theirs")
    ours = replace(a_row(), **OURS, point_id="ours", chosen=["request_rate_per_s"], valid=True)
    assert pair_errors(pair_up([imported, ours])) is None
    assert frontier([imported, ours]) == []
    assert truth.data([imported, ours])["answers"] == []
    assert batches([imported, ours]) == []


def test_the_table_says_what_was_asked_and_what_was_looked_for():
    ours = replace(a_row(), **OURS, point_id="ours", chosen=["request_rate_per_s"], valid=True)
    failed = replace(ours, status="failed", valid=False, error="no server answers", load={}, tokens_per_s=None)
    slow = replace(ours, valid=False, invalid_reason="100 of 200 requests failed", chosen=[])
    cells = served_table([ours, failed, slow]).rows
    assert [each["source"] for each in cells] == ["measured"] * 3
    assert [each["note"] for each in cells] == [
        "the largest rate under the limits",
        "failed: no server answers",
        "not valid: 100 of 200 requests failed",
    ]
    assert (cells[0]["ttft_limit_s"], cells[0]["request_rate_per_s"]) == (0.1, 2.5)

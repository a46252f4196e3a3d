"""Tables in Markdown, CSV and LaTeX."""

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.main.tables import beside_published, error_table, latency_tables, unanswered_table
from bench.report.render import latex, latex_document
from bench.report.render.blocks import Heading, Inline, Text
from bench.rows.escape import file_name, markdown
from bench.rows.pairing import pair_up
from bench.rows.table import Column, Table, to_csv, to_markdown


def table(**changes):
    content = {
        "name": "some_table",
        "caption": "50% & more",
        "columns": [Column("model"), Column("mfu"), Column("relative_error", "error (%)", 100.0, "+.1f")],
        "rows": [
            {"model": "a_b|c", "mfu": 0.4325, "relative_error": -0.051},
            {"model": "plain", "mfu": None, "relative_error": None},
        ],
    }
    return Table(**(content | changes))


def test_markdown_scales_and_escapes():
    lines = to_markdown(table()).splitlines()
    assert lines[0] == "**50% & more**"
    assert lines[2] == "| model | MFU (%) | error (%) |"
    assert lines[3] == "|---|---:|---:|"
    assert lines[4] == "| a_b\\|c | 43.2 | -5.1 |"
    assert lines[5] == "| plain |  |  |"


def test_csv_holds_fractions_under_the_keys_of_a_row():
    rows = list(csv.reader(io.StringIO(to_csv(table()))))
    assert rows == [["model", "mfu", "relative_error"], ["a_b|c", "0.4325", "-0.051"], ["plain", "", ""]]


def test_csv_has_every_row_where_print_has_a_choice():
    shortened = table(shown=[])
    assert to_csv(shortened) == to_csv(table())
    assert "plain" not in to_markdown(shortened)
    assert "plain" not in latex.to_latex(shortened)


def test_latex_escapes():
    text = latex.to_latex(table())
    assert r"\caption{50\% \& more}" in text
    assert r"a\_b\textbar{}c & 43.2 & -5.1 \\" in text
    assert r"\toprule" in text


@given(st.text(max_size=60))
def test_no_text_reaches_latex_as_a_command(text):
    escaped = latex.escape(text)
    # Take away what escape() writes; what stays may hold none of LaTeX's own characters.
    for known in sorted(latex.SPECIAL.values(), key=len, reverse=True):
        escaped = escaped.replace(known, "")
    assert not set(escaped) & set("\\&%$#_{}~^")


def test_rows_of_latex_have_as_many_cells_as_columns(rows):
    pairs = pair_up(rows)
    tables = [*latency_tables(rows, pairs), *beside_published(pairs), error_table(pairs), unanswered_table(rows)]
    for each in tables:
        text = latex.to_latex(each)
        body = text.partition(r"\endlastfoot")[2].partition(r"\end{longtable}")[0].strip().splitlines()
        assert len(body) == len(each.printed)
        for line in body:
            assert len(re.findall(r"(?<!\\)&", line)) == len(each.columns) - 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(rows, tmp_path):
    pairs = pair_up(rows)
    odd = table(caption="odd: \\ { } ~ ^ # $ < > · × ± − ≤ µ ‖ → … é 語")
    tables = [odd, error_table(pairs), *latency_tables(rows, pairs)[:3], unanswered_table(rows)]
    (tmp_path / "tables").mkdir()
    for each in tables:
        (tmp_path / "tables" / f"{each.name}.tex").write_text(latex.to_latex(each), encoding="utf-8")
    text = Text(f"**{markdown(odd.caption)}** `x_y` [a *link*](http://x)\n\n- an item\n- {markdown(odd.caption)}")
    blocks = [Heading("A 100% title", 1), Heading(odd.caption), text, *map(Inline, tables)]
    (tmp_path / "all.tex").write_text(latex_document.document("A 100% title", [blocks, blocks]), encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 1000


def test_a_table_never_mixes_sources_without_saying_so(rows):
    tables = latency_tables(rows, pair_up(rows))
    assert tables
    for each in tables:
        assert "source" in [column.key for column in each.columns]
        assert all(row["source"] in ("measured", "predicted", "published") for row in each.rows)
        assert len({(row["model"], row["hw"], row["phase"]) for row in each.rows}) == 1


def test_an_invalid_row_says_why(measured):
    (found,) = latency_tables(measured, [])
    lines = [line for line in to_markdown(found).splitlines() if "not valid" in line]
    assert len(lines) == 1
    assert "interval is ±12.0%" in lines[0]


def test_a_long_table_prints_all_that_was_observed_and_what_stands_beside_it(published, predicted):
    rows = [*published, *predicted]
    found = next(each for each in latency_tables(rows, pair_up(rows)) if each.name == "latency_palm-8b_tpu-v4_decode")
    assert found.shown is not None or len(found.rows) <= 40
    paper = next(
        each for each in latency_tables(rows, pair_up(rows)) if each.name == "latency_gpt-20b_a100-80gb_generate"
    )
    printed = [row["source"] for row in paper.printed]
    assert printed.count("published") == sum(row.model == "gpt-20b" and row.status == "ok" for row in published)


def test_the_error_stands_beside_what_was_published(published, predicted):
    pairs = pair_up([*published, *predicted])
    found = beside_published(pairs)
    timed = [pair.reference.system for pair in pairs if pair.relative_error is not None]
    assert {each.name for each in found} == {file_name("published", system) for system in timed}
    assert sum(len(each.rows) for each in found) > 600
    for each in found:
        for row in each.rows:
            assert row["relative_error"] == pytest.approx(row["latency_s"] / row["published_latency_s"] - 1)


def test_out_of_memory_is_counted_against_what_was_published(published, predicted):
    whole = next(row for row in error_table(pair_up([*published, *predicted])).rows if row["system"] == "all")
    assert whole["oom_hit"] + whole["oom_missed"] == sum(row.status == "oom" for row in published) == 10
    for status, missed in (("ok", 10), ("unsupported", whole["oom_missed"])):
        denied = [replace(row, status=status) if row.status == "oom" else row for row in predicted]
        none = next(row for row in error_table(pair_up([*published, *denied])).rows if row["system"] == "all")
        assert (none["oom_hit"], none["oom_missed"]) == (0, missed)


def test_points_without_a_time_keep_their_sentences(published, measured):
    found = unanswered_table([*published, *measured])
    assert len(found.rows) == 10
    assert all("out of memory" in row["error"] for row in found.rows)
    assert unanswered_table(measured) is None


def test_rates_of_what_was_measured_print_where_the_chip_has_a_datasheet(measured):
    rows = [replace(row, mfu_of_matmul=0.61, mbu_of_copy=0.734) for row in measured]
    (here,) = latency_tables(rows, [])
    (there,) = latency_tables([replace(row, hw="h200") for row in rows], [])
    assert "MBU of copy" not in to_markdown(here)
    assert "| MFU of matmul (%) | MBU of copy (%) |" in to_markdown(there)
    assert "| 61.0 | 73.4 |" in to_markdown(there)
    assert "mbu_of_copy" in to_csv(here).splitlines()[0].split(",")


def test_rates_of_two_engines_on_a_cpu_are_not_to_be_compared(measured):
    (alone,) = latency_tables(measured, [])
    (both,) = latency_tables([*measured, *(replace(row, engine="torch") for row in measured)], [])
    (on_gpu,) = latency_tables(
        [replace(row, hw="h200", engine=engine) for engine in ("jax", "torch") for row in measured], []
    )
    assert "compare times" in both.note
    assert "compare times" not in alone.note + on_gpu.note

"""``shardbench report paper``: its rows side by side, from stores or asked anew; what its files say."""

import csv
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from builders.points import point

from bench.cli.main import main
from bench.report.paper.answers import answers_of
from bench.report.paper.findings import chips, errors, paper_findings
from bench.report.paper.items import ITEMS, asked_of, drawable
from bench.report.paper.report import paper_report
from bench.report.paper.side_by_side import SECONDS, side_by_side
from bench.report.render.document import write
from bench.rows.labels import read_rows
from bench.sweep.runtimes import load_runtime

ROOT = Path(__file__).parents[2]
STORES = [str(ROOT / "results" / name) for name in ("studies", "calibration")]


@pytest.fixture(scope="module")
def document():
    return paper_report("The paper & its rows", read_rows(*STORES))[0]


@pytest.fixture(scope="module")
def written(document, tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    write(document, folder, ["markdown", "html", "latex", "csv"], ["pdf"])
    return folder


@pytest.fixture
def chat():
    """Decode of 64 tokens at batch 64 with int8 weights: a row of Table 2 at 1.82 s."""
    return point(
        model="palm-540b", hw="tpu-v4", engine="analytic", runtime=load_runtime("xla-2022"), num_chips=64,
        phase="decode", batch_size=64, input_len=1984, output_len=64, weight_dtype="int8", ffn_layout="ws_2d",
        attn_sharding="batch",
    )  # fmt: skip


@pytest.fixture
def answers(chat):
    (found,) = answers_of([chat], []).answers
    return found


def lines_of(folder, name):
    with (folder / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_what_no_store_has_is_looked_up_and_predicted(answers):
    assert set(answers.rows) == {"published", "predicted"}
    assert answers.value("published", "latency_s") == 1.82
    assert answers.value("published", "time_s") == pytest.approx(1.82 / 64)
    predicted = answers.value("predicted", "latency_s")
    assert answers.error("predicted", "latency_s") == pytest.approx(predicted / 1.82 - 1)
    assert answers.error("measured", "latency_s") is None


def test_a_stored_row_comes_before_one_asked_anew(chat, answers):
    stored = replace(answers.rows["predicted"], latency_s=3.64)
    found = answers_of([chat], [stored])
    assert found.anew == 1
    assert found.answers[0].error("predicted", "latency_s") == pytest.approx(1.0)


def test_of_several_rows_the_engines_own_choice_comes_first(chat, answers):
    row = replace(answers.rows["predicted"], source="compiled", engine="compiled", runtime="xla")
    own = replace(row, point_id="a", latency_s=2.0, chosen=["runtime", "collectives"], collectives="plain")
    told = replace(row, point_id="b", latency_s=1.0, chosen=["runtime"], collectives="latency")
    slower = replace(own, point_id="c", latency_s=3.0)
    failed = replace(own, point_id="d", status="oom", valid=False, latency_s=None)
    for order in ([own, told, slower, failed], [failed, slower, told, own]):
        assert answers_of([chat], order).answers[0].rows["compiled"].point_id == "a"
    other = replace(own, engine="jax-llm-examples")
    gspmd = replace(own, partitioner="gspmd")
    heads = replace(own, attn_sharding="heads")
    newer = replace(answers.rows["predicted"], runtime="xla")
    assert "compiled" not in answers_of([chat], [other, gspmd, heads]).answers[0].rows
    assert answers_of([chat], [newer]).answers[0].rows["predicted"] is not newer


@pytest.mark.parametrize("seconds", [math.nan, math.inf, None])
@pytest.mark.parametrize("source", ["published", "predicted", "compiled", "measured"])
def test_a_row_without_a_finite_time_is_no_figure(answers, source, seconds):
    row = replace(answers.rows["predicted"], source=source, latency_s=seconds, step_time_s=seconds, mfu=seconds)
    changed = replace(answers, rows={**answers.rows, source: row})
    table = side_by_side("x", "x", [changed], [SECONDS])
    assert table.rows[0][f"{source}.latency_s"] is None
    assert table.rows[0]["remark"] == f"{source}: not valid"
    assert errors("x", [changed]) == [] or source not in ("published", "predicted")


def test_rows_out_of_memory_are_named(answers):
    row = replace(answers.rows["predicted"], status="oom", valid=False, latency_s=None)
    table = side_by_side("x", "x", [replace(answers, rows={**answers.rows, "predicted": row})], [SECONDS])
    assert table.rows[0]["remark"] == "predicted: oom"
    assert "compiled or measured" in table.note


def test_a_row_that_set_the_constants_is_no_check_of_them(answers):
    published = answers.rows["published"]
    set_by = [f"{published.reference}, decode step, batch 64, int8"]
    row = replace(
        answers.rows["predicted"], source="compiled", engine="compiled", details={"constants": {"set_by": set_by}}
    )
    mine = replace(answers, rows={"published": published, "compiled": row})
    assert errors("x", [mine]) == []
    other = replace(row, details={"constants": {"set_by": [set_by[0].replace("64", "512")]}})
    assert len(errors("x", [replace(answers, rows={"published": published, "compiled": other})])) == 1


def test_every_table_has_all_kinds_side_by_side_and_names_its_rows(written):
    for name in ("table2", "table3", "table_d2", "table_d3", "table_d4", "figure1", "figure6", "figure7", "figure8"):
        lines = lines_of(written, name)
        figures = [key for key in lines[0] if re.fullmatch(r"(published|predicted|compiled|measured)\.[a-z_]+", key)]
        assert {key.partition(".")[0] for key in figures} == {"published", "predicted", "compiled", "measured"}
        for line in lines:
            for source in ("published", "predicted", "compiled", "measured"):
                if any(line[key] for key in figures if key.startswith(source) and not key.endswith("point_id")):
                    assert line[f"{source}.point_id"]


def test_the_tables_have_every_published_row(written):
    counts = {name: len(lines_of(written, name)) for name in ("table2", "table3", "table_d2", "table_d3", "table_d4")}
    # Of the appendix: 9 batches of 4 columns of the paper (one less in D.4), and 27 rows of FasterTransformer.
    assert counts == {"table2": 6, "table3": 4, "table_d2": 63, "table_d3": 63, "table_d4": 54}
    line = lines_of(written, "table2")[0]
    assert float(line["predicted.error.published"]) == pytest.approx(float(line["predicted.latency_s"]) / 0.29 - 1)


def test_the_first_page_has_six_findings_a_figure_and_a_table(written, document):
    text = (written / "paper.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^- \*\*", text, re.MULTILINE)) == 6
    assert re.findall(r"\(figures/[^)]*\)", text) == ["(figures/figure9_mfu_over_latency.pdf)"]
    assert len(re.findall(r"^\|[-:|]+\|$", text, re.MULTILINE)) == 1
    for each in document.findings:
        assert re.fullmatch(r"[^.]+(\.\d[^.]*)*\.", each.sentence.replace("D.2", "D2").replace("D.4", "D4"))
    appendix = (written / "appendix.md").read_text(encoding="utf-8")
    for number in ("1", "6", "7", "8"):
        section = appendix.partition(f"## Figure {number}:")[2].partition("\n## ")[0]
        assert f"`shardbench run +sweep=paper-figure{number}`" in section
        assert re.search(r"Rows: .*\d+ predicted rows", section)


def test_the_same_rows_give_the_same_bytes_in_every_format(document, tmp_path):
    tables = [each for each in document.sections if each.draw is None]
    files = []
    for name in ("a", "b"):
        folder = tmp_path / name
        endings = ["png", "pdf", "svg"]
        write(replace(document, sections=tables), folder, ["markdown", "html", "latex", "csv"], endings)
        files.append({str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()})
    assert files[0] == files[1]
    assert {name.rpartition(".")[2] for name in files[0]} == {"md", "html", "tex", "csv", "png", "pdf", "svg", "json"}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_the_document_compiles(written):
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"-output-directory={written}", "paper.tex"]
    done = subprocess.run(command, cwd=written, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "undefined" not in done.stdout


def test_findings_need_their_rows():
    asked = asked_of([each for each in ITEMS if each.name == "figure6"], [])
    assert [each.sources for each in chips(asked["figure6"].answers)] == [("predicted",)]
    assert chips([]) == []
    empty = {each.name: replace(asked["figure6"], answers=[]) for each in ITEMS}
    assert paper_findings(empty) == []
    assert drawable(empty["figure6"], "time_s") == []


def test_the_command_needs_no_store(tmp_path, capsys):
    words = ["report", "paper", f"results_dir={tmp_path / 'none'}", f"out={tmp_path}", "figures=none", "format=csv"]
    assert main([*words, "print=json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [check["passed"] for check in told["checks"]] == 6 * [True]
    assert "tables/table2.csv" in told["files"]

"""The report: its numbers are those of the rows, kinds of evidence stay apart, files come whole."""

import contextlib
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from builders.published import newest_rows

from bench.cli.main import main
from bench.rows.frontier import frontier
from bench.rows.pairing import pair_errors, pair_up
from bench.rows.store import Store
from engines.published.table import rows_in, tables

KEYS = ("runtime", "model", "hw", "num_chips", "phase", "batch_size", "input_len", "output_len", "weight_dtype",
        "tensor_parallel", "pipeline_parallel")  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def published_store(tmp_path_factory):
    """Rows of the published recipe: published and predicted, through the real harness."""
    folder = tmp_path_factory.mktemp("published")
    words = ["run", "sweep=published", f"results_dir={folder}", "print=none", "wandb.mode=disabled"]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def small_store(published_store, tmp_path_factory):
    """Its rows of one model: what holds for any rows is cheaper to see on them."""
    folder = tmp_path_factory.mktemp("small")
    Store(folder).append([row for row in Store(published_store).load() if row.model == "gpt-20b"])
    return folder


@pytest.fixture(scope="module")
def tables_alone(published_store, tmp_path_factory):
    """The report of the published recipe without figures: what it told, and its folder."""
    out, told = tmp_path_factory.mktemp("tables") / "report", io.StringIO()
    with contextlib.redirect_stdout(told):
        main(["report", f"results_dir={published_store}", f"out={out}", "print=json", "figures=[]"])
    return json.loads(told.getvalue()), out


@pytest.fixture
def changed_store(published_store, tmp_path):
    """A store in which some rows of the published recipe were changed by ``change(row) -> changes or None``."""

    def make(change):
        changed = ((row, change(row)) for row in Store(published_store).load())
        rows = [replace(row, **changes) for row, changes in changed if changes is not None]
        Store(tmp_path / "changed").append(rows)
        return tmp_path / "changed"

    return make


@pytest.fixture
def report(capsys, tmp_path):
    """``report(store, *words)`` → exit code, what ``print=json`` printed, the folder."""

    def run(store, *words, verb=()):
        out = tmp_path / "report"
        capsys.readouterr()
        code = main(["report", *verb, f"results_dir={store}", f"out={out}", "print=json", *words])
        return code, json.loads(capsys.readouterr().out), out

    return run


def finding(told, topic, source=None):
    found = [
        each for each in told["findings"] if each["topic"] == topic and (source is None or source in each["sources"])
    ]
    assert found, topic
    return found[0]


def read_csv(path):
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_it_opens_with_what_was_found_and_every_file_is_there(published_store, report):
    code, told, out = report(published_store)
    assert code == 0
    text = (out / "report.md").read_text() + (out / "appendix.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "Findings"
    assert finding(told, "headline")["sentence"] in text
    for name in told["files"]:
        assert (out / name).stat().st_size > 0
    endings = {name.rpartition(".")[2] for name in told["files"]}
    assert {"md", "html", "csv", "tex", "png", "pdf", "svg", "json"} <= endings
    assert not list(out.glob(".report-*"))
    for link in re.findall(r"\]\(([^)]+\.(?:png|csv|pdf))\)", text):
        assert (out / link).is_file()


def test_the_headline_is_the_published_maximum(tables_alone):
    told, _ = tables_alone
    numbers = finding(told, "headline", "published")["numbers"]
    # 1024 sequences of 80 tokens in 11.608 s on 64 chips of 275 TFLOP/s; N = 540e9 as the paper counts.
    assert numbers["PaLM 540B, 64 TPU v4"] == pytest.approx(1024 * 80 / 11.608 * 2 * 540e9 / (64 * 275e12))


def test_the_prediction_error_is_that_of_the_pairs_and_names_its_fit(published_store, tables_alone):
    told, _ = tables_alone
    found = finding(told, "prediction error")
    answers = {}
    for row in Store(published_store).load():
        answers[(row.engine, *(getattr(row, key) for key in KEYS))] = row
    published = {key[1:]: row for key, row in answers.items() if key[0] == "published" and row.status == "ok"}
    assert len(published) == sum(row.status == "ok" for row in newest_rows())
    both = [(row, answers[("analytic", *key)]) for key, row in published.items()]
    errors = [abs(answer.latency_s / row.latency_s - 1) for row, answer in both if answer.status == "ok"]
    assert found["numbers"]["n"] == len(errors) > 600
    assert found["numbers"]["mean"] == pytest.approx(sum(errors) / len(errors))
    held_out = finding(told, "held-out error")
    assert held_out["sentence"].startswith("With constants fitted without a source's own rows, ")
    assert f"{max(held_out['numbers'].values()):.1%}" in held_out["sentence"]


@pytest.fixture
def newest_tables(tmp_path):
    """A folder of the published tables without the rows whose question a newer release answers too."""
    folder = tmp_path / "newest"
    folder.mkdir()
    newest = {id(row) for row in newest_rows()}
    for path in tables().values():
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line, row in zip(lines, rows_in(path.name), strict=True) if id(row) in newest]
        (folder / path.name).write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")
    return folder


def test_validate_prints_the_same_figures_as_the_report_of_the_same_rows(tables_alone, newest_tables, capsys):
    _, out = tables_alone
    (line,) = [
        each
        for each in read_csv(out / "tables" / "error_by_system.csv")
        if (each["system"], each["model"]) == ("all",) * 2
    ]
    assert main(["validate", f"data={newest_tables}", "print=json"]) == 0
    told = json.loads(capsys.readouterr().out)
    keys = {"mean": "mape", "median": "median_ape", "p90": "p90_ape", "worst": "worst_ape", "bias": "bias"}
    assert {key: float(line[key]) for key in keys} == pytest.approx({key: told[name] for key, name in keys.items()})
    counts = ("oom_hit", "oom_missed", "oom_false")
    assert [int(line[key]) for key in ("n", *counts)] == [told[key] for key in ("compared", *counts)]


def test_an_answer_is_never_taken_for_a_publication(changed_store, report):
    store = changed_store(lambda row: {} if row.source == "predicted" else None)
    _, told, out = report(store, "figures=[]")
    assert {source for each in told["findings"] for source in each["sources"]} == {"predicted"}
    assert not [name for name in told["files"] if name.startswith("tables/published")]
    for path in (out / "tables").glob("latency_*.csv"):
        assert {line["source"] for line in read_csv(path)} == {"predicted"}


def test_a_row_that_is_not_valid_is_no_finding_and_says_why(changed_store, report):
    reason = "95% interval is ±30% of the median"

    def change(row):
        if row.source == "predicted" and row.model == "gpt-20b" and row.latency_s is not None:
            wrong = row.batch_size == 1
            return {
                "source": "measured",
                "engine": "torch",
                "latency_s": 1e-9 if wrong else row.latency_s,
                "mfu": 0.999 if wrong else row.mfu,
                "valid": not wrong,
                "invalid_reason": reason if wrong else None,
            }
        return None

    _, told, out = report(changed_store(change), "figures=[]")
    assert finding(told, "highest MFU", "measured")["numbers"]["mfu"] < 0.9
    valid = finding(told, "validity")["numbers"]
    assert valid["valid"] < valid["measured"]
    assert reason in (out / "tables" / "latency_gpt-20b_a100-80gb_generate.md").read_text()


def test_the_same_rows_make_the_same_files(small_store, report, tmp_path):
    _, first, out = report(small_store, "figures=png")
    before = {name: (out / name).read_bytes() for name in first["files"]}
    _, second, _ = report(small_store, "figures=png")
    assert second["files"] == first["files"]
    assert {name: (out / name).read_bytes() for name in second["files"]} == before


def test_files_of_a_former_report_go_and_others_stay(small_store, report):
    _, _, out = report(small_store, "figures=[]")
    (out / "mine.txt").write_text("stays")
    report(small_store, "figures=[]", "format=markdown")
    assert (out / "mine.txt").read_text() == "stays"
    assert not list(out.rglob("*.csv"))


def test_latex_compiles_where_there_is_latex(small_store, report):
    _, told, out = report(small_store, "figures=[]", "format=latex")
    assert "report.tex" in told["files"]
    text = (out / "tables" / "error_by_system.tex").read_text()
    assert "\\toprule" in text
    assert "\\bottomrule" in text
    assert "\\%" in text
    if shutil.which("pdflatex") is None:
        return
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"],
        cwd=out,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_tables_are_in_si_units_and_fractions(tables_alone):
    _, out = tables_alone
    lines = read_csv(out / "tables" / "latency_palm-540b_tpu-v4_prefill.csv")
    (line,) = [
        each
        for each in lines
        if each["source"] == "published" and each["batch_size"] == "512" and each["input_len"] == "2048"
    ]
    assert float(line["latency_s"]) == 85.2
    assert float(line["mfu"]) == pytest.approx(0.755, abs=0.001)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("format=[docx]",), "format=docx"),
        (("figures=[gif]",), "figures=gif"),
        (("format=[]",), "format=[]"),
        (("out=/dev/null/x",), "out=/dev/null/x"),
    ],
)
def test_a_wrong_question_is_one_line(published_store, capsys, words, key):
    assert main(["report", f"results_dir={published_store}", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert key in line


def test_an_empty_store_says_what_to_do(tmp_path, capsys):
    assert main(["report", f"results_dir={tmp_path / 'none'}", f"out={tmp_path / 'out'}"]) == 2
    assert "shardbench run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_tables_are_written_and_one_sentence_says_so(small_store, tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'matplotlib' else find(name, *rest)\n"
        "from bench.cli.main import main\n"
        f"sys.exit(main(['report', 'results_dir={small_store}', 'out={tmp_path / 'out'}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "shardbench[report]" in done.stdout
    assert (tmp_path / "out" / "report.md").is_file()
    assert not list((tmp_path / "out").rglob("*.png"))


def test_pairs_join_open_choices_and_stated_ones(published_store):
    rows = Store(published_store).load()
    pairs = pair_up(rows)
    assert len(pairs) == len(newest_rows())
    stated = [pair for pair in pairs if pair.reference.ffn_layout == "wg_xyz"]
    assert [pair.answer.ffn_layout for pair in stated] == ["wg_xyz"] * 2
    other = [row for row in rows if row.source == "published" or row.ffn_layout != "wg_xyz"]
    assert len(pair_up(other)) == len(pairs) - 2
    errors = pair_errors(pairs)
    assert errors.mean >= errors.median * 0.5
    assert errors.worst >= errors.p90 >= errors.median


def test_a_frontier_is_beaten_by_nobody(published_store):
    rows = [row for row in Store(published_store).load() if row.model == "gpt-20b" and row.source == "predicted"]
    best = frontier(rows)
    assert best
    for row in rows:
        if row.status == "ok":
            assert any(
                each.latency_s <= row.latency_s and each.cost_chip_s_per_token <= row.cost_chip_s_per_token
                for each in best
            )
    costs = [row.cost_chip_s_per_token for row in best]
    assert costs == sorted(costs, reverse=True)


def test_the_comparison_checks_the_papers_claims(published_store, report):
    code, told, _ = report(published_store, "figures=[]", verb=("comparison",))
    decided = [check for check in told["checks"] if check["passed"] is not None]
    assert len(decided) >= 20
    assert code == int(any(not check["passed"] for check in decided))
    assert all(check["passed"] for check in decided if check["source"] == "published")


def test_a_claim_that_fails_is_exit_code_1(changed_store, report):
    def slower(row):
        return {"latency_s": row.latency_s and 2 * row.latency_s, "mfu": row.mfu and row.mfu / 2}

    code, told, _ = report(changed_store(slower), "figures=[]", verb=("comparison",))
    assert code == 1
    failed = [check for check in told["checks"] if check["passed"] is False]
    assert any("64-way" in check["claim"] for check in failed)
    assert json.dumps(failed)

"""``shardbench report`` over all kinds of rows at once, and what it does to the folder that it writes to."""

import json
import re

import pytest

from bench.cli.main import main
from bench.rows.store import Store


@pytest.fixture(scope="module")
def store(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    Store(folder).append(rows)
    return folder


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    """The folder of a whole report, which takes a while to draw."""
    out = tmp_path_factory.mktemp("whole")
    assert report(store, out, "figures=png", "format=[markdown,html,csv]") == 0
    return out


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def report(store, out, *words):
    return main(["report", *words, f"results_dir={store}", f"out={out}"])


def test_the_report_opens_with_what_was_found(store, tmp_path, capsys):
    assert report(store, tmp_path / "out", "figures=[]", "title=Mine", "format=markdown") == 0
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# Mine\n\n## Findings\n\n- **headline** (published): ")
    assert "[How to read a row](tables/metrics.md)" in (tmp_path / "out" / "appendix.md").read_text(encoding="utf-8")
    assert "figures/" not in text
    assert "headline (published)" in capsys.readouterr().out


def test_every_figure_is_drawn_and_shown(whole):
    first = files_of(whole)
    assert set(json.loads(first["manifest.json"])["files"]) == set(first)
    text = (first["report.md"] + first["appendix.md"]).decode()
    shown = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert shown == [
        "figures/figure9_mfu_over_latency.png",
        "figures/against_published.png",
        "figures/predicted_over_published.png",
        "figures/pareto_a100-80gb_fastertransformer.png",
        "figures/pareto_a100-80gb_tensorrt-llm.png",
        "figures/pareto_h100-80gb.png",
        "figures/pareto_tpu-v4_best.png",
        "figures/pareto_tpu-v4_xla-2022.png",
        "figures/measured_step_time.png",
        "figures/measured_mfu_over_chips.png",
    ]
    for name in shown:
        assert first[name].startswith(b"\x89PNG")


def test_the_first_page_has_six_findings_one_figure_and_one_table(whole):
    text = (whole / "report.md").read_text(encoding="utf-8")
    found = [line for line in text.splitlines() if line.startswith("- **")]
    assert len(found) == 6
    assert all(re.fullmatch(r"[^.]+(\.\d[^.]*)*\.", line.partition("): ")[2]) for line in found)  # one sentence
    assert text.count("![") == 1
    assert len(re.findall(r"^\|[-:|]+\|$", text, re.MULTILINE)) == 1
    assert len(text.splitlines()) <= 40
    html = (whole / "report.html").read_text(encoding="utf-8")
    assert (html.count("<img"), html.count("<table"), html.count("<li>")) == (1, 1, 6)
    for name in re.findall(r'(?:href|src)="([^"#]+)"', html + (whole / "appendix.html").read_text("utf-8")):
        assert name.startswith(("http://", "https://")) or (whole / name).is_file(), name


def test_the_appendix_is_short_and_every_long_table_is_linked(store, tmp_path):
    assert report(store, tmp_path, "figures=[]", "format=[markdown,csv]") == 0
    text = (tmp_path / "appendix.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 280
    links = re.findall(r"\]\((tables/[^)]*)\)", text)
    assert len(links) == len(set(links))
    tables = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "tables").glob("*.md")}
    assert {link for link in links if link.endswith(".md")} == tables
    for link in links:
        assert (tmp_path / link).is_file()
    # A table is in the text or in its own file; its CSV is there either way.
    for path in (tmp_path / "tables").glob("*.csv"):
        assert path.with_suffix(".md").exists() == (f"tables/{path.stem}.md" in links)


def test_only_the_formats_that_were_asked_for(store, tmp_path):
    assert report(store, tmp_path, "format=csv", "figures=none") == 0
    assert {name.rpartition(".")[2] for name in files_of(tmp_path)} == {"csv", "json"}


def test_a_manifest_cannot_name_files_outside(store, tmp_path):
    outside = tmp_path / "precious.txt"
    outside.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text(json.dumps({"files": ["../precious.txt", str(outside)]}))
    assert report(store, out, "figures=[]", "format=markdown") == 0
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("verb", [[], ["comparison"]])
def test_an_empty_store_is_one_line(tmp_path, capsys, verb):
    assert main(["report", *verb, f"results_dir={tmp_path / 'none'}", f"out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds no rows" in error
    assert "shardbench run" in error
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_refused_and_kept(store, tmp_path, capsys):
    out = tmp_path / "file"
    out.write_text("mine")
    assert report(store, out, "figures=[]") == 2
    assert "out=" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_the_comparison_says_whether_the_claims_hold(store, tmp_path, capsys, published):
    alone = tmp_path / "published"
    Store(alone).append(published)
    assert report(alone, tmp_path / "out", "comparison", "print=json", "figures=[]") == 0
    content = json.loads(capsys.readouterr().out)
    assert all(check["passed"] in (True, None) for check in content["checks"])
    assert (tmp_path / "out" / "comparison" / "comparison.md").is_file()


def test_the_comparison_needs_its_rows(tmp_path, capsys, measured):
    Store(tmp_path / "store").append(measured)
    assert report(tmp_path / "store", tmp_path / "out", "comparison") == 2
    assert "holds none of its rows" in capsys.readouterr().err


def test_the_log_of_a_report_of_several_stores_lies_in_the_first(store, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr("bench.run.tracking.open_tracker", lambda config: kept.append(config["results_dir"]))
    monkeypatch.chdir(tmp_path)
    words = ["format=csv", "figures=none", "wandb=offline"]
    assert main(["report", f"results_dir=[{store},{tmp_path / 'other'}]", f"out={tmp_path / 'out'}", *words]) == 0
    assert kept == [str(store)]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out"]

"""``shardbench report`` from a store to files."""

import json
import re
import sys

import pytest

from bench.cli import main
from bench.store import Store

SLOW_PARTS = pytest.mark.slow


@pytest.fixture(scope="module")
def store(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    Store(folder).append(rows)
    return folder


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def report(store, out, *words):
    return main(["report", *words, f"results_dir={store}", f"out={out}"])


def test_the_report_opens_with_what_was_found(store, tmp_path, capsys):
    assert report(store, tmp_path / "out", "figures=[]", "title=Mine") == 0
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# Mine\n\n## What was found\n\n- **headline** (published): ")
    assert "## How to read a row" in text
    assert "figures/" not in text
    assert "headline (published)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_rows_give_the_same_files_with_figures_that_the_text_shows(store, tmp_path, capsys):
    assert report(store, tmp_path / "a", "print=json") == 0
    content = json.loads(capsys.readouterr().out)
    assert report(store, tmp_path / "b") == 0
    first, second = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert first == second
    assert set(content["files"]) == set(first)
    text = first["report.md"].decode()
    shown = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert shown == [
        "figures/figure9_mfu_over_latency.png",
        "figures/against_published.png",
        "figures/pareto_tpu-v4.png",
        "figures/measured_step_time.png",
        "figures/measured_mfu_over_chips.png",
    ]
    for name in shown:
        assert first[name].startswith(b"\x89PNG")
        assert first[name.replace(".png", ".pdf")].startswith(b"%PDF")


def test_only_the_formats_that_were_asked_for(store, tmp_path):
    assert report(store, tmp_path, "format=csv", "figures=none") == 0
    assert {name.rpartition(".")[2] for name in files_of(tmp_path)} == {"csv", "json"}


def test_a_former_reports_files_go_and_others_stay(store, tmp_path):
    assert report(store, tmp_path, "figures=[]") == 0
    (tmp_path / "notes.txt").write_text("mine")
    assert report(store, tmp_path, "figures=[]", "format=markdown") == 0
    assert set(files_of(tmp_path)) == {"report.md", "manifest.json", "notes.txt"}


def test_a_manifest_cannot_name_files_outside(store, tmp_path):
    outside = tmp_path / "precious.txt"
    outside.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text(json.dumps({"files": ["../precious.txt", str(outside)]}))
    assert report(store, out, "figures=[]", "format=markdown") == 0
    assert outside.read_text() == "mine"


def test_without_matplotlib_the_tables_are_still_written(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert report(store, tmp_path, "print=json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["remarks"] == ["Figures need matplotlib: pip install shardbench[report]."]
    assert not [name for name in content["files"] if name.startswith("figures/")]
    assert [name for name in content["files"] if name.endswith(".csv")]


@pytest.mark.parametrize("verb", [[], ["comparison"]])
def test_an_empty_store_is_one_line(tmp_path, capsys, verb):
    assert main(["report", *verb, f"results_dir={tmp_path / 'none'}", f"out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds no rows" in error
    assert "shardbench run" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "key"),
    [(["format=html"], "format=html"), (["figures=[png,svg]"], "figures=svg"), (["format=[]"], "format=[]")],
)
def test_what_cannot_be_written_is_refused(store, tmp_path, capsys, words, key):
    assert report(store, tmp_path / "out", *words) == 2
    assert key in capsys.readouterr().err
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


def test_the_comparison_is_bad_when_a_claim_fails(tmp_path, capsys, published):
    from dataclasses import replace

    slow = [replace(row, step_time_s=1.0) if row.output_len == 1 else row for row in published]
    Store(tmp_path / "store").append(slow)
    assert report(tmp_path / "store", tmp_path / "out", "comparison", "figures=[]") == 1
    assert "these do not" in capsys.readouterr().out


def test_the_comparison_needs_its_rows(tmp_path, capsys, measured):
    Store(tmp_path / "store").append(measured)
    assert report(tmp_path / "store", tmp_path / "out", "comparison") == 2
    assert "holds none of its rows" in capsys.readouterr().err

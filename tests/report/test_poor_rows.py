"""Reports of one row, of failed rows alone, and of values that are no finite numbers: each is a page that says so."""

import json
import math
import re

import pytest
from builders.rows import a_row

from bench.cli.main import main
from bench.rows.store import Store

FAILED = {"status": "failed", "error": "a | reason", "valid": False, "latency_s": None, "mfu": None}
GOOD = {"status": "ok", "valid": True, "latency_s": 1.0, "step_time_s": 0.1, "mfu": 0.5, "cost_chip_s_per_token": 0.1}


def rows_of(kind):
    wrong = {"nan": math.nan, "inf": math.inf}.get(kind)
    of = {"measured": {"engine": "jax"}, "predicted": {"engine": "analytic"}, "published": {"engine": "published"}}
    rows = []
    for source, engine in of.items():
        for size in (1, 2) if kind != "one" else (1,):
            values = FAILED if kind == "failed" else GOOD
            if wrong is not None:
                values = {key: wrong if isinstance(value, float) else value for key, value in values.items()}
            common = {"source": source, "phase": "decode", "num_chips": 2 * size, "batch_size": size, "hw": "tpu-v4"}
            rows.append(a_row(point_id=f"{source}{size}", **{"model": "palm-540b"} | engine | common | values))
    return rows[:1] if kind == "one" else rows


def stored(folder, rows, read=lambda text: text):
    """A store of these rows, as ``read`` changes their text: the store itself writes no NaN, another program may."""
    Store(folder).append(rows_of("one"))
    (part,) = (folder / "rows").iterdir()
    lines = "".join(json.dumps(row.to_dict()) + "\n" for row in rows)
    part.write_text(read(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", ["one", "failed"])
def test_each_report_is_a_page(kind, tmp_path, capsys):
    store = stored(tmp_path / "store", rows_of(kind))
    assert main(["report", f"results_dir={store}", f"out={tmp_path}", "figures=png"]) == 0
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert 1 <= text.count("- **") <= 6
    assert not re.search(r"\b(nan|inf)\b", text)
    assert "| source | what it is |" in text or "Fastest decode step" in text
    assert text.count("![") <= 1
    words = ["report", "pivot", f"results_dir={store}", f"out={tmp_path}", "rows=source", "value=mfu", "aggregate=max"]
    capsys.readouterr()
    assert main(words) == 0
    assert not re.search(r"\b(nan|inf)\b", capsys.readouterr().out)


@pytest.mark.parametrize(("kind", "word"), [("nan", "NaN"), ("inf", "Infinity"), ("inf", "1e999")])
@pytest.mark.parametrize("verb", [[], ["paper"], ["pivot", "rows=model", "value=mfu"]])
def test_a_store_of_other_numbers_is_named_in_one_sentence(kind, word, verb, tmp_path, capsys):
    store = stored(tmp_path / "store", rows_of(kind), lambda text: text.replace("Infinity", word))
    assert main(["report", *verb, f"results_dir={store}", f"out={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"line 1: (latency_s )?holds", line)
    assert not (tmp_path / "report.md").exists()

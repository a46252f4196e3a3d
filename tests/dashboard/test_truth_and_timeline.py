"""What was computed beside what was observed, and the turn of a compiled loop: the data, and the pages in Chromium."""

import base64
import csv
import gzip
import json
import time

import pytest
from builders.rows import a_row
from builders.site_rows import HOSTILE
from builders.traces import by_hand

from bench.compare.verdicts import Rules
from bench.dashboard import timeline, truth
from bench.dashboard.write import write
from bench.rows.pairing import pair_errors, pair_up
from bench.rows.store import Store
from engines.compiled.perfetto import write_trace

POINT = {"hw": "tpu-v4", "engine": "analytic", "runtime": "auto", "weight_dtype": "bfloat16", "act_dtype": "bfloat16"}
WHOLE_S = by_hand().account.total_s


def row_of(source, seconds, batch=4, **more):
    interval = {"latency_low_s": 0.8 * seconds, "latency_high_s": 1.2 * seconds} if source == "predicted" else {}
    engines = {"predicted": "analytic", "compiled": "compiled", "published": "published", "measured": "jax"}
    content = {"point_id": f"{source} {batch}", "engine": engines[source], "valid": True, "latency_s": seconds}
    return a_row(**{**POINT, "source": source, "batch_size": batch, **content, **interval, **more})


def truth_rows():
    """Batches 1, 2, 4: predicted is 0.92, 1.05 and 1.5 of what is published, and the last interval misses it."""
    rows = [row_of("published", 1.0, batch, reference=HOSTILE) for batch in (1, 2, 4)]
    rows += [row_of("predicted", ratio, batch) for batch, ratio in ((1, 0.92), (2, 1.05), (4, 1.5))]
    rows += [row_of("compiled", 1.2, 4), row_of("measured", 2.0, 4, host="one"), row_of("measured", 3.0, 4, host="two")]
    rows += [row_of("published", None, 8, status="oom", valid=False)]
    rows += [row_of("predicted", 9.0, 8)]
    rows += [row_of("published", 1.0, 16), row_of("predicted", 5.0, 16, valid=False)]
    return rows


def pairs_by_hand(found, rows):
    return sorted(
        (rows[answer].source, rows[reference].source, rows[answer].batch_size, rows[reference].latency_s or 0.0)
        for answer, reference in zip(found["answers"], found["references"], strict=True)
    )


def test_pairs_are_computed_over_observed_rows_that_say_something():
    rows = truth_rows()
    computed = [("compiled", "measured", 4, s) for s in (2.0, 3.0)] + [("compiled", "published", 4, 1.0)]
    computed += [("predicted", "measured", 4, s) for s in (2.0, 3.0)]
    computed += [("predicted", "published", batch, 1.0) for batch in (1, 2, 4)] + [("predicted", "published", 8, 0.0)]
    assert pairs_by_hand(truth.data(rows), rows) == sorted(computed)


def test_the_row_that_stands_for_a_point_counts_once():
    rows = truth_rows()
    newer = row_of("predicted", 0.95, 1, created_at="2026-02-01T00:00:00.000+00:00", program_id="newer")
    found = truth.data([*rows, newer])
    assert len(found["answers"]) == len(truth.data(rows)["answers"])
    assert len(rows) in found["answers"]


def test_what_the_system_is_names_the_runtime():
    known = row_of("published", 1.0, system="vLLM 0.4")
    unknown = row_of("published", 1.0, system="of my own", batch=2)
    rows = [known, unknown, row_of("predicted", 1.0), row_of("predicted", 1.0, 2), row_of("measured", 1.0)]
    found = truth.data(rows)
    by_reference = dict(zip(found["references"], found["runtimes"], strict=True))
    assert by_reference == {0: "vllm", 1: "of my own", 4: "jax"}


def test_a_turn_and_its_trace_are_found_beside_the_rows(tmp_path):
    path = write_trace(str(tmp_path / "night" / "traces"), "a", by_hand(), 4)
    row = row_of("compiled", WHOLE_S, details={"traces": {"decode": path.name}})
    data = timeline.data([row_of("measured", 1.0), row], ["", "night"], tmp_path)
    (found,) = data["timeline"]["found"]
    assert (found["row"], found["phase"], found["number"], found["problem"]) == (1, "decode", 0, None)
    assert base64.b64decode(data["traces/0"]) == path.read_bytes()
    turn = json.loads(gzip.decompress(base64.b64decode(data["turns/0"])))
    assert (turn["turns"], turn["loops"], turn["seconds"]) == (4, 2, 100e-6)
    compute = [place for place, lane in enumerate(turn["lane"]) if turn["lanes"][lane] == "compute"]
    assert sum(turn["duration_s"][place] * turn["weight"][place] for place in compute) == pytest.approx(100e-6)


@pytest.mark.parametrize(
    ("name", "seconds", "problem"),
    [
        ("gone.trace.json.gz", WHOLE_S, "is not there"),
        ("damaged.trace.json.gz", WHOLE_S, "is not a trace of a compiled program"),
        ("a.trace.json.gz", 2 * WHOLE_S, "is of another program"),
    ],
)
def test_a_trace_that_is_not_the_rows_is_a_sentence(tmp_path, name, seconds, problem):
    write_trace(str(tmp_path / "traces"), "a", by_hand(), 4)
    (tmp_path / "traces" / "damaged.trace.json.gz").write_bytes(b"no")
    data = timeline.data([row_of("compiled", seconds, details={"traces": {"decode": name}})], [""], tmp_path)
    (found,) = data["timeline"]["found"]
    assert found["number"] is None
    assert problem in found["problem"]


@pytest.mark.parametrize("traces", [{"decode": "../a.trace.json.gz"}, {"decode": None}, ["a"], "a", None])
def test_a_name_outside_the_folder_is_none(tmp_path, traces):
    write_trace(str(tmp_path), "a", by_hand(), 4)
    rows = [row_of("compiled", WHOLE_S, details={"traces": traces})]
    assert timeline.data(rows, [""], tmp_path)["timeline"]["found"] == []


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The site of all those rows, a compiled row with a trace and one of hostile names without."""
    pytest.importorskip("plotly")
    folder = tmp_path_factory.mktemp("made")
    path = write_trace(str(folder / "store" / "traces"), "a", by_hand(), 4)
    spot = {"name": HOSTILE, "seconds": 1e-4, "bytes": 1e6, "count": 2, "bound": "link"}
    loop = {"hot_loop": {"decode": {"turns": 8, "seconds": 2e-4, "by_kind": [spot], "longest": [spot]}}}
    with_trace = row_of("compiled", WHOLE_S, 32, details={**loop, "traces": {"decode": path.name}})
    without = row_of("compiled", 1.0, 64, model=HOSTILE, details=loop)
    Store(folder / "store").append([*truth_rows(), without, with_trace])
    write(folder / "store", folder / "site", "made", Rules())
    return folder


def test_truth_says_what_the_report_computes(browser, made):
    browser.open(made / "site" / "index.html", "#/truth?source=published&engine=analytic")
    browser.until("return document.querySelector('.chart')?.dataset.points === '3'")
    rows = [row for row in truth_rows() if row.source in ("predicted", "published")]
    errors = pair_errors(pair_up(rows))
    text = browser.text()
    assert f"3 pairs: median answer 1.050 × the observed time, mean error {errors.mean:.1%}" in text
    assert "67% within ±10%" in text
    assert "The 80% intervals of 3 answers hold the observed time in 67%." in text
    assert "Out of memory: 0 told, 1 missed, 0 false alarms." in text
    assert browser.errors() == []


def test_truth_saves_pairs_and_groups_and_keeps_its_address(browser, made):
    browser.open(made / "site" / "index.html", "#/truth?by=reference&sort=-ratio")
    browser.until("return document.querySelector('.chart')?.dataset.points === '8'")
    groups = browser.run(
        "return [...document.querySelectorAll('table.data')[0].querySelectorAll('tbody:nth-of-type(2) tr')]"
        ".map((row) => [...row.children].slice(0, 2).map((cell) => cell.innerText))"
    )
    assert groups == [["published", "4"], ["measured", "4"]]
    browser.run("[...document.querySelectorAll('button.csv')].at(-1).click()")
    lines = list(csv.DictReader(saved(browser, "truth.csv").read_text().splitlines()))
    ratios = [float(line["ratio"]) for line in lines if line["ratio"]]
    assert ratios == sorted(ratios, reverse=True)
    assert len(lines) == len(ratios) + 1 == 9
    assert browser.errors() == []


def saved(browser, name):
    path = browser.downloads / name
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return path


def test_timeline_draws_every_lane_and_gives_the_trace_itself(browser, made):
    browser.open(made / "site" / "index.html", "#/timeline")
    browser.until("return document.querySelector('.chart')?.dataset.points")
    text = browser.text()
    assert "One turn of the loop over layers, 100 µs; it runs 8 times" in text
    assert "matmuls 75.0%" in text
    lanes = browser.run("return [...document.querySelectorAll('.chart .ytick')].map((each) => each.textContent)")
    assert lanes == ["compute", "link x +", "link x -"]  # the copy begins outside of the loop
    browser.run("document.querySelector('button.trace').click()")
    assert saved(browser, "a.trace.json.gz").read_bytes() == (made / "store/traces/a.trace.json.gz").read_bytes()
    assert browser.errors() == []


def test_timeline_without_a_trace_names_the_command(browser, made):
    browser.open(made / "site" / "index.html", "#/timeline?batch_size=4")
    browser.until("return document.querySelector('main .command code')")
    command = browser.text("main .command code")
    assert command.startswith("shardbench run model=tiny hw=tpu-v4")
    assert command.endswith(f"resume=false results_dir={made}/store engine.trace_dir={made}/store/traces")
    browser.open(made / "site" / "index.html", "#/timeline?batch_size=64")
    browser.until("return document.querySelector('.hotspots')")
    assert HOSTILE in browser.run("return document.querySelector('.hotspots').textContent")
    assert browser.run("return document.querySelectorAll('main img, main script').length") == 0
    assert browser.errors() == []


@pytest.mark.parametrize("page", ["truth", "timeline"])
def test_pages_are_no_wider_than_a_phone(browser, made, page):
    browser.open(made / "site" / "index.html", f"#/{page}", width=360, height=800)
    browser.until("return document.querySelector('.chart .main-svg')")
    assert browser.run("return document.documentElement.scrollWidth") <= 360


def test_a_store_with_neither_says_how_to_make_one(browser, tmp_path):
    pytest.importorskip("plotly")
    Store(tmp_path / "store").append([row_of("measured", 1.0)])
    write(tmp_path / "store", tmp_path / "page.html", "bare", Rules())
    for page, words in (("truth", "engine=[published,analytic]"), ("timeline", "engine=compiled")):
        browser.open(tmp_path / "page.html", f"#/{page}")
        assert words in browser.text("main")
    assert browser.errors() == []

"""Overview, History and Compare in Chromium, of nights with a step, failures and a host that is new."""

import csv

import pytest
from builders.rows import a_row
from builders.site_nights import NIGHTS, STEP, night, write_nights
from builders.site_rows import HOSTILE

from bench.compare.nights.judge import judge
from bench.compare.nights.read import read_nights
from bench.compare.nights.steps import StepRules
from bench.compare.nights.summary import headline
from bench.compare.verdicts import Rules
from bench.dashboard.judged import ratio_interval
from bench.dashboard.write import write
from bench.rows.store import Store

POINTS = "return document.querySelector('.chart')?.dataset.points"
TABLE = "return document.querySelector('.above-table .quiet')?.textContent"
LINES = (
    "return [...document.querySelectorAll('table.data tbody:nth-of-type(2) tr')]"
    ".map((each) => each.innerText.split('\\t'))"
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = write_nights(tmp_path_factory.mktemp("nights"))
    part = Store(folder / night(NIGHTS - 2)).parts()[0]
    part.write_text(part.read_text() + "{damaged\n")
    return folder


@pytest.fixture(scope="module")
def nightly(stores, tmp_path_factory):
    pytest.importorskip("plotly")
    out = tmp_path_factory.mktemp("nightly") / "site"
    write(stores, out, "nights", Rules())
    return out / "index.html"


def test_the_overview_says_what_the_night_said_and_leads_to_the_history(browser, nightly, stores):
    browser.open(nightly)
    told = headline(judge(read_nights(stores), StepRules(), 0.05))
    assert browser.text(".headline").lower() == f"{told}.".lower()
    assert browser.run("return document.querySelector('.verdict').className") == "verdict unknown"
    lines = browser.run(LINES)
    assert [line[0] for line in lines] == ["still slower", "still broken", "not judged"]
    assert night(STEP) in lines[0]
    assert "Nothing was compared on it this night." in browser.text()
    assert "1 damaged row left out" in browser.text("footer")
    browser.run("document.querySelector('.kinds button').click()")
    assert browser.run(TABLE) == "1 point"
    assert "kind=still+slower" in browser.run("return location.hash")
    browser.run("document.querySelector('table.data tbody:nth-of-type(2) a').click()")
    browser.until("return document.querySelector('main .page.history')")
    assert "point_id=m2" in browser.run("return location.hash")
    assert browser.errors() == []


def test_every_history_is_in_a_panel_and_one_alone_has_its_steps(browser, nightly):
    browser.open(nightly, "#/history")
    assert int(browser.until(POINTS)) == 7
    assert browser.run(TABLE) == "7 points"
    shapes = browser.run("return document.querySelector('.chart').layout.shapes.map((each) => each.x0)")
    assert sorted(shapes) == [night(5), night(STEP)]
    browser.open(nightly, "#/history?point_id=m2&host=one")
    assert int(browser.until(POINTS)) == NIGHTS
    assert browser.text("table.lines tbody tr").split("\t")[0] == night(STEP)
    assert "commit aaaaaaaaaaaa → bbbbbbbbbbbb" in browser.text("table.lines")
    bars = browser.run("return document.querySelector('.chart').data[0].error_y.array")
    assert len(bars) == NIGHTS
    assert min(bars) > 0
    browser.open(nightly, "#/history?view=together&source=measured")
    assert int(browser.until(POINTS)) == NIGHTS
    browser.open(nightly, "#/history?changed=yes&source=predicted")
    browser.until("return document.querySelector('.page .empty')")
    assert browser.text(".page .empty") == "None of these points has a step."
    assert browser.errors() == []


def test_the_page_shows_the_same_ratio_and_interval_as_python(browser, nightly):
    browser.open(nightly, f"#/compare?by=night&a={night(STEP - 1)}&b={night(STEP)}&source=measured")
    assert int(browser.until(POINTS)) == 3
    lines = browser.run(LINES)
    assert [line[5] for line in lines] == ["slower", *["not told apart"] * 2]
    ratio = float(lines[0][3])
    assert ratio == pytest.approx(1.1, rel=0.02)
    key = browser.run(
        "return new Promise((done) => { const old = shardbench.data; const script = document.createElement('script');"
        "shardbench.data = (name, value) => { shardbench.data = old; done(value.keys[0]); };"
        "script.src = 'data/compare.js'; document.head.append(script); })"
    )
    sides = [
        next(
            (key["times"][place], (key["low"][place], key["high"][place]))
            for place in range(len(key["rows"]))
            if key["values"][key["value"][place]] == night(STEP - 1 + which) and key["rest"][place] == rest
        )
        for rest in [key["rest"][next(p for p, t in enumerate(key["times"]) if t and 0.0195 < t < 0.0205)]]
        for which in range(2)
    ]
    expected = ratio_interval(*sides)
    assert lines[0][4] == " to ".join(f"{end:.3f}" for end in expected)
    assert float(lines[0][3]) == pytest.approx(sides[1][0] / sides[0][0], abs=5e-4)
    assert browser.errors() == []


def test_engines_stand_side_by_side_and_the_csv_is_what_is_shown(browser, nightly):
    browser.open(nightly, "#/compare?by=engine&a=jax&b=analytic")
    assert int(browser.until(POINTS)) == 2  # batch 2 on both hosts
    assert "no partner that differs in engine alone" in browser.text()
    browser.run("document.querySelector('button.csv').click()")
    path = browser.downloads / "compare.csv"
    for _ in range(200):
        if path.exists():
            break
        browser.run("return new Promise((done) => setTimeout(done, 20))")
    lines = list(csv.DictReader(path.open()))
    assert [line["batch_size"] for line in lines] == ["2", "2"]
    assert [float(line["ratio"]) for line in lines] == [
        pytest.approx(float(line["b_s"]) / float(line["a_s"])) for line in lines
    ]
    browser.run("[...document.querySelectorAll('button')].find((each) => each.textContent === 'Swap').click()")
    assert "a=analytic&b=jax" in browser.run("return location.hash")
    browser.until("return document.querySelector('table.data th:nth-of-type(2)').innerText.startsWith('analytic')")
    assert browser.errors() == []


@pytest.mark.parametrize("page", ["overview", "history", "history?point_id=m2", "compare"])
def test_nothing_is_wider_than_a_telephone(browser, nightly, page):
    browser.open(nightly, f"#/{page}")
    screen = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        browser.until("return innerWidth === 390 && document.documentElement.scrollWidth <= 390")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert browser.errors() == []


def test_hostile_names_and_stores_without_anything_to_compare_are_shown_as_they_are(browser, tmp_path):
    pytest.importorskip("plotly")
    texts = dict.fromkeys(("model", "hw", "host", "device_kind", "ffn_layout", "git_sha"), HOSTILE)
    for number, time in enumerate((1.0, 1.2)):
        content = {
            "source": "compiled",
            "engine": "compiled",
            "valid": True,
            "latency_s": time,
            "versions": {HOSTILE: str(time)},
        }
        Store(tmp_path / "nights" / night(number)).append([a_row(**{**texts, **content}, point_id=HOSTILE)])
    write(tmp_path / "nights", tmp_path / "site", HOSTILE, Rules())
    for page in ("overview", "history", "compare"):
        browser.open(tmp_path / "site" / "index.html", f"#/{page}")
        if page != "overview":
            browser.until(POINTS)
        assert HOSTILE in browser.run("return document.querySelector('main').textContent"), page
        assert browser.run("return document.querySelectorAll('main img, main script').length") == 0
        assert browser.run("return document.title").endswith(HOSTILE)
    Store(tmp_path / "one").append([a_row(status="oom", error="needs 99 GiB")])
    write(tmp_path / "one", tmp_path / "one.html", "one", Rules())
    browser.open(tmp_path / "one.html")
    assert "First night: 1 point and nothing to compare with." in browser.text()
    assert "good" not in browser.run("return document.querySelector('.verdict').className")
    assert browser.run("return [...document.querySelectorAll('table.lines th')].at(-1).innerText") == "out of memory"
    browser.open(tmp_path / "one.html", "#/history")
    assert "1 point" in browser.text()
    browser.open(tmp_path / "one.html", "#/compare")
    assert "nothing to compare" in browser.text(".empty")
    assert browser.errors() == []

"""The site in Chromium: nothing is lost, nothing becomes markup, every address leads back to what it showed."""

import base64
import csv
import json
import time

import pytest
from builders.rows import a_row
from builders.site_rows import HOSTILE, rows_of_all_kinds

from bench.compare.verdicts import Rules
from bench.dashboard.bundle import folder
from bench.dashboard.columns import columns
from bench.dashboard.write import write
from bench.rows.store import Store

pytestmark = pytest.mark.slow(seconds=20)
CHART = "return document.querySelector('.chart')?.dataset.points"
TABLE = "return document.querySelector('.above-table .quiet')?.textContent"
COUNT = len(rows_of_all_kinds()) + 1


def test_explorer_draws_every_figure_and_lists_every_row(browser, site):
    browser.open(site, "#/explorer")
    assert int(browser.until(CHART)) == 16  # cost and latency of four rows a source
    assert browser.run(TABLE) == f"{COUNT} rows"
    text = browser.text()
    assert "1 out of memory" in text
    assert "1 not valid" in text
    assert "1 timeout" in text
    assert "1 damaged row left out" in browser.text("footer")
    assert browser.errors() == []


def test_hostile_text_stays_text_on_every_page(browser, site):
    browser.open(
        site, "#/explorer?x=latency_s&y=mfu&color=model&facet=hw&columns=source,label,host,reference,invalid_reason"
    )
    browser.until(CHART)
    assert HOSTILE in browser.run("return document.querySelector('main').textContent")
    browser.open(site, "#/row?point_id=hostile")
    browser.until("return document.querySelector('.tree') && document.querySelector('.samples .main-svg')")
    text = browser.run("return document.querySelector('main').textContent")
    assert text.count(HOSTILE) > 8
    for element in ("main img", "main script", "header img", "footer script"):
        assert browser.run("return document.querySelectorAll(arguments[0]).length", element) == 0
    assert browser.run("return document.title").endswith(HOSTILE)
    assert browser.errors() == []


def test_an_address_leads_back_to_its_filters_and_its_pinned_row(browser, site):
    browser.open(site, "#/explorer?source=compiled&batch_size=2..4&sort=-latency_s")
    browser.until(CHART)
    assert browser.run(TABLE) == "2 rows"
    first = browser.run("return document.querySelector('table.data tbody:nth-of-type(2) tr').innerText")
    assert "batch 4" in first
    browser.run("document.querySelector('table.data tbody:nth-of-type(2) tr td:last-child').click()")
    browser.until("return document.querySelector('.pinned .command code')")
    address = browser.run("return location.hash")
    command = browser.text(".pinned .command code")
    assert command.startswith("shardbench run model=tiny hw=cpu num_chips=8 engine=jax phase=decode batch_size=4")
    browser.open(site, address)
    browser.until("return document.querySelector('.pinned .command code')")
    assert browser.text(".pinned .command code") == command
    assert browser.run(TABLE) == "2 rows"
    browser.run("location.hash = '#/explorer?source=published'")
    assert browser.until(TABLE) == "4 rows"


def test_a_list_of_values_filters_and_counts_what_the_others_leave(browser, site):
    browser.open(site, "#/explorer?source=predicted")
    browser.until(CHART)
    browser.run("document.querySelector('summary[data-key=outcome]').click()")
    box = browser.until("return document.querySelector('[data-key=\"outcome out of memory\"]')")
    listed = browser.text("details[open] .values").split()
    assert "timeout" in listed
    assert "not" not in listed  # no predicted row is "not valid"
    box.click()
    assert "outcome=out+of+memory" in browser.run("return location.hash")
    assert browser.run(TABLE) == "1 row"
    assert "No row" not in browser.text(".above-table")


def test_csv_has_what_is_shown_in_its_order(browser, site):
    browser.open(site, "#/explorer?source=measured&valid=true&sort=-latency_s&model=tiny&batch_size=1&batch_size=8")
    browser.until(CHART)
    browser.run("document.querySelector('button.csv').click()")
    for _ in range(200):
        found = list(browser.downloads.glob("rows*.csv"))
        if found:
            break
        time.sleep(0.05)
    rows = list(csv.DictReader(found[0].read_text().splitlines()))
    assert [float(row["latency_s"]) for row in rows] == [0.08, 0.01]
    assert {row["model"] for row in rows} == {"tiny"}


def test_the_keyboard_alone_finds_and_opens_a_row(browser, site):
    from selenium.webdriver.common.keys import Keys

    browser.open(site, "#/explorer")
    browser.until(CHART)
    browser.keys("/")
    browser.keys("no such layout")
    browser.until("return document.querySelector('.above-table .quiet').textContent === '1 row'")
    browser.run("document.querySelector('.scroll').focus()")
    browser.keys(Keys.ARROW_DOWN, Keys.ENTER)
    browser.until("return document.querySelector('.pinned .command code')")
    before = browser.run("return document.documentElement.dataset.theme")
    browser.keys("t")
    browser.until("return document.documentElement.dataset.theme !== arguments[0]", before)
    browser.until("return document.querySelector('.pinned .command code')")
    browser.keys("?")
    assert browser.run("return document.querySelector('dialog').open")
    assert browser.errors() == []


def test_a_row_says_everything_and_how_to_ask_it_again(browser, site):
    browser.open(site, "#/row?point_id=measured-4&created_at=2026-01-02T03%3A04%3A00.004%2B00%3A00")
    text = browser.until("return document.querySelector('.tables')?.innerText")
    assert "tiny on 8 cpu, decode, batch 4" in browser.text()
    assert "tokens_per_s · 2N" in text  # the formula of MFU
    assert "mfu = 0.25" in text
    assert "two" in text
    for link in browser.run("return [...document.querySelectorAll('.page.row p a')].map(each => each.hash)"):
        assert "point_id=measured-4" in link
    browser.open(site, "#/row?point_id=hostile")
    browser.until("return document.querySelector('.tables')")
    assert "shardbench import reads it again" in browser.text()
    browser.open(site, "#/row?point_id=none")
    assert "No row of this site" in browser.text()


@pytest.mark.parametrize("page", ["#/explorer", "#/row?point_id=hostile"])
def test_nothing_is_wider_than_a_phone(browser, site, page):
    browser.open(site, page, width=360, height=800)
    browser.until("return document.querySelector('.chart .main-svg')")
    assert browser.run("return document.documentElement.scrollWidth") <= 360


ODD_STORES = {
    "only damaged": [],
    "one row": [a_row(latency_s=1.0, valid=True)],
    "only failed": [a_row(status="failed", error="crashed", point_id=str(n)) for n in range(3)],
    "infinite": [a_row(latency_s=1.0, mfu=0.25, point_id=name) for name in ("finite", "infinite")],
    "equal": [a_row(latency_s=1.0, valid=True), a_row(latency_s=2.0, valid=True)],
}


@pytest.mark.parametrize("name", ODD_STORES)
def test_odd_stores_make_a_page_of_one_file_that_says_what_is_there(browser, tmp_path, name):
    rows = ODD_STORES[name]
    part = Store(tmp_path / "store").append(rows or [a_row()])
    if not rows:
        part.write_text("{\n")
    if name == "infinite":
        first, second = part.read_text().splitlines(keepends=True)
        part.write_text(first + second.replace("0.25", "1e999"))
        rows = rows[:1]
    assert write(tmp_path / "store", tmp_path / "page.html", "odd", Rules()) == len(rows)
    browser.open(tmp_path / "page.html", "#/explorer" if rows else "")
    if not rows:
        assert "No rows in" in browser.text()
        assert "shardbench run" in browser.text()
    else:
        assert browser.until(TABLE) == ("1 row" if len(rows) == 1 else f"{len(rows)} rows")
        links = browser.run(
            "return [...document.querySelectorAll('table.data a')].map(each => each.getAttribute('href'))"
        )
        assert len(set(links)) == len(rows)  # two rows of one point and moment are told apart
        for link in links:
            browser.run("location.hash = arguments[0]", link)
            browser.until("return document.querySelector('.page.row .tables') !== null")
    left_out = browser.run("return document.querySelector('details.damaged')?.textContent ?? ''")
    assert ("1 damaged row left out" in left_out and "mfu holds a number that is not finite" in left_out) == (
        name == "infinite"
    )
    assert browser.errors() == []


def test_fifty_thousand_rows_are_drawn_and_listed_and_only_those_in_view_are_in_the_page(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    rows = [
        a_row(point_id=str(n), latency_s=1 + n / 7, mfu=0.5 / (n + 1), batch_size=n, valid=True) for n in range(500)
    ]
    content = columns(rows, [""] * 500, {})
    for each in content["columns"]:
        name = "codes" if "codes" in each else "numbers"
        each[name] = base64.b64encode(base64.b64decode(each[name]) * 100).decode()
    data = {"rows": {**content, "length": 50_000}}
    about = {"title": "t", "rows": 50_000, "chunk": 250, "damaged": [], "data": ["rows"], "summary": ""}
    for path, text in folder("t", {"site": about, **data}):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    browser.open(tmp_path / "index.html", "#/explorer?x=latency_s&y=mfu")
    browser.until(CHART)
    assert browser.run(CHART) == "50000"
    assert browser.run(TABLE) == "50,000 rows"
    lines = "return document.querySelectorAll('table.data tr').length"
    assert browser.run(lines) < 100
    browser.run("document.querySelector('.scroll').focus()")
    browser.keys(Keys.END)
    browser.until("return document.querySelector('[aria-rowindex=\"50001\"].current') !== null")
    assert browser.run(lines) < 100
    browser.run("location.hash += '&batch_size=7&batch_size=490..'")
    browser.until("return document.querySelector('.above-table .quiet').textContent === '1,100 rows'")
    assert browser.errors() == []


def test_the_site_loads_nothing_from_elsewhere(site):
    text = "".join(
        path.read_text() for path in site.parent.rglob("*") if path.name != "plotly.min.js" and path.is_file()
    )
    assert "http://" not in text.replace(json.dumps("http://")[1:-1] + "www.w3.org", "").replace(HOSTILE, "")
    assert "fetch(" not in text
    assert "import(" not in text

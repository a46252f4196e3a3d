"""The page as its reader has it: told steps, nothing loaded, readable in a browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from builders.rows import a_row

from bench.cli.main import main
from bench.compare.dashboard.chart import chart
from bench.compare.dashboard.history import find_earlier_steps, histories
from bench.compare.dashboard.page import MOST_ROWS, page
from bench.compare.verdicts import Rules
from bench.rows.store import Store

GENERATOR = np.random.default_rng(5)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Checker(HTMLParser):
    """Every tag that opens is closed in order; which tags and classes there are."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def count(self, tag, **attrs):
        return sum(tag == name and attrs.items() <= found.items() for name, found in self.tags)


def night(day, shift=1.0, **changes):
    samples = [float(each) for each in 0.02 * shift * GENERATOR.lognormal(0, 0.03, 30)]
    content = {
        "samples_s": samples,
        "latency_s": float(np.median(samples)),
        "ci_low": min(samples),
        "ci_high": max(samples),
        "created_at": f"2026-01-{day:02d}T02:00:00.000+00:00",
        "point_id": f"point-{day}",
        "host": "h",
        "valid": True,
    }
    return a_row(**{**content, **changes})


def nights(*shifts, **changes):
    return [night(day, shift, **changes) for day, shift in enumerate(shifts, start=1)]


def test_a_step_last_night_is_a_regression_and_one_before_is_history():
    (series,) = histories(nights(1.0, 1.0, 1.0, 1.3), Rules())
    assert series.regressed
    (series,) = histories(nights(1.0, 1.3, 1.3, 1.3), Rules())
    assert not series.regressed
    assert series.steps == {}
    find_earlier_steps([series], Rules())
    assert {place: change.verdict for place, change in series.steps.items()} == {1: "slower"}
    (series,) = histories(nights(1.0, 1.0, 0.7), Rules())
    assert series.latest_step.verdict == "faster"
    assert not series.regressed


def test_nights_of_several_processes_are_judged_by_their_scatter():
    def processes(day, *shifts):
        made = [f"2026-01-{day:02d}T0{hour}:00:00.000+00:00" for hour in range(len(shifts))]
        return [night(day, shift, created_at=when) for shift, when in zip(shifts, made, strict=True)]

    rows = [*processes(1, 1.0, 1.2, 0.9), *processes(2, 1.1, 1.3, 1.05), *processes(3, 2.0, 2.2, 1.9)]
    (series,) = histories(rows, Rules(by_process=True))
    assert len(series.rows) == 3
    assert series.latest_step.verdict == "slower"
    assert (len(series.latest_step.runs.old), len(series.latest_step.runs.new)) == (3, 3)
    find_earlier_steps([series], Rules(by_process=True))
    assert list(series.steps) == [2]
    # By samples of the fastest, the second night is another step.
    (series,) = histories(rows, Rules())
    find_earlier_steps([series], Rules())
    assert sorted(series.steps) == [1, 2]


def test_changed_code_makes_another_point_id_and_the_same_series():
    assert len(histories(nights(1, 1, 1), Rules())) == 1
    assert len(histories([*nights(1, 1), *nights(1, 1, batch_size=8)], Rules())) == 2


def test_a_chart_has_a_dot_and_a_bar_an_answer_and_marks_the_step():
    (series,) = histories(nights(1.0, 1.0, 1.3), Rules())
    found = Checker(chart(series))
    assert found.count("circle") == 3
    assert found.count("circle", **{"class": "worse"}) == 1
    assert found.count("line", **{"class": "bar"}) == 3
    dots = [attrs for tag, attrs in found.tags if tag == "circle"]
    assert float(dots[2]["cy"]) < float(dots[0]["cy"])  # slower is higher on the page
    assert [float(dot["cx"]) for dot in dots] == sorted(float(dot["cx"]) for dot in dots)


def test_a_chart_of_equal_times_is_a_level_line():
    rows = [night(day, latency_s=1.0, samples_s=None, source="predicted", ci_low=None, ci_high=None) for day in (1, 2)]
    (series,) = histories(rows, Rules())
    assert len({attrs["cy"] for tag, attrs in Checker(chart(series)).tags if tag == "circle"}) == 1


def test_the_page_is_whole_and_loads_nothing():
    rows = [*nights(1, 1, 1.3), a_row(source="published", engine="published", latency_s=2.0, valid=True)]
    text = page(sorted(rows, key=lambda row: row.created_at), "a <title> & more", Rules())
    found = Checker(text)
    assert all(link.startswith("#") for link in found.links)
    assert not re.search(r"https?://|@import|url\(|<script", text)
    assert "a &lt;title&gt; &amp; more" in text
    assert "prefers-color-scheme: dark" in text
    assert text.index("measured</h3>") < text.index("published</h3>")


def test_what_a_row_says_cannot_become_markup():
    row = a_row(status="failed", error="<script>alert('x')</script> & $title")
    text = page([row], "t", Rules())
    assert "<script>" not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; $title" in text


def test_many_rows_are_counted_and_not_all_printed():
    rows = [a_row(source="predicted", batch_size=size, latency_s=1.0, valid=True) for size in range(1, 351)]
    text = page(rows, "t", Rules())
    assert f"{350 - MOST_ROWS} more" in text
    assert Checker(text).count("tr") < MOST_ROWS + 10


def test_stores_below_a_folder_are_one_history(tmp_path, capsys):
    for day, shift in ((1, 1.0), (2, 1.0), (3, 1.4)):
        Store(tmp_path / f"2026-01-0{day}").append([night(day, shift)])
    out = tmp_path / "pages" / "dashboard.html"
    assert main(["dashboard", f"results_dir={tmp_path}", f"out={out}", "title=night watch"]) == 0
    assert f"3 rows in {out}" in capsys.readouterr().out
    assert "worse than before" in out.read_text()
    assert [path.name for path in out.parent.iterdir()] == ["dashboard.html"]


def test_no_rows_or_no_place_to_write_is_one_line(tmp_path, capsys):
    assert main(["dashboard", f"results_dir={tmp_path}"]) == 2
    assert "has no rows" in capsys.readouterr().err
    Store(tmp_path).append([a_row()])
    assert main(["dashboard", f"results_dir={tmp_path}", "out=/proc/none/page.html"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "out=/proc/none/page.html" in line


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser_nothing_is_wider_than_the_window(tmp_path, width):
    long = "a sentence without end " * 20 + "x" * 300
    rows = [*nights(1, 1, 1.3), a_row(batch_size=9, status="failed", error=long)]
    text = page(sorted(rows, key=lambda row: row.created_at), "t", Rules())
    # The page stands in a frame of the width in question: a headless window is never as narrow as a telephone.
    path = tmp_path / "page.html"
    path.write_text(text)
    inside = "f.contentDocument"
    ask = f"document.title = {inside}.documentElement.scrollWidth + ' ' + {inside}.querySelectorAll('circle').length"
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="f" src="page.html" width="{width}" height="900" style="border:0" onload="{ask}"></iframe>'
    )
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    scroll_width, circles = map(int, re.search(r"<title>(\d+) (\d+)</title>", done.stdout).groups())
    assert scroll_width <= width
    assert circles == 3

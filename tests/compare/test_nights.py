"""The verdict on a night, from stores of many nights."""

import json
from dataclasses import replace

import pytest
from builders.rows import a_row

from bench.compare.nights.history import histories
from bench.compare.nights.judge import judge
from bench.compare.nights.read import read_nights
from bench.compare.nights.steps import StepRules
from bench.compare.nights.summary import action_benchmark, headline, markdown, plain
from bench.rows.store import Store

RULES = StepRules()
QUIET = [1.0, 1.004, 0.998, 1.002, 0.999, 1.003, 0.997]


def day(number):
    return f"2026-03-{number + 1:02}"


def measured(time, **changes):
    content = {"latency_s": time, "samples_s": [time], "valid": True, "host": "h", "device_kind": "cpu"}
    return a_row(**(content | changes))


def stored(folder, nights):
    """``nights``: lists of rows, one list a night."""
    for number, rows in enumerate(nights):
        Store(folder / day(number)).append(rows)
    return read_nights(folder)


def verdict_of(folder, nights):
    return judge(stored(folder, nights), RULES, threshold=0.05)


def kinds(verdict):
    return [(each.kind, each.since) for each in verdict.findings]


def test_two_slow_nights_are_a_regression_and_one_is_a_suspicion(tmp_path):
    nights = [[measured(time)] for time in (*QUIET, 1.1, 1.101)]
    before = [replace(row, git_sha="a" * 40, versions={"jax": "0.9"}) for (row,) in nights[:7]]
    after = [replace(row, git_sha="b" * 40, versions={"jax": "0.10"}) for (row,) in nights[7:]]
    nights = [[row] for row in (*before, *after)]
    told = verdict_of(tmp_path / "one", nights[:8])
    assert kinds(told) == [("suspected", day(7))]
    assert not told.worse
    assert headline(told) == "no point worse of 1 compared, 1 suspected"
    told = verdict_of(tmp_path / "two", nights)
    assert kinds(told) == [("slower", day(7))]
    assert told.worse[0].ratio == pytest.approx(1.1, rel=0.005)
    assert told.worse[0].changed == ("commit aaaaaaaaaaaa → bbbbbbbbbbbb", "jax 0.9 → 0.10")
    assert "| 1.1" in markdown(told)


def test_a_regression_is_told_until_it_is_gone(tmp_path):
    times = [*QUIET, 1.1, 1.101, 1.099, 1.1]
    told = verdict_of(tmp_path / "open", [[measured(time)] for time in times])
    assert kinds(told) == [("still slower", day(7))]
    told = verdict_of(tmp_path / "gone", [[measured(time)] for time in (*times, 1.0, 1.001)])
    assert kinds(told) == [("faster", day(11))]


def test_several_processes_count_as_their_median_and_two_as_the_fastest(tmp_path):
    nights = [[measured(time) for time in (1.0, 1.01, 3.0)] for _ in range(4)]
    found = histories(stored(tmp_path, [*nights, [measured(2.0), measured(1.02)]]))
    assert found[0].times_s == [1.01] * 4 + [1.02]


def test_a_point_that_breaks_is_told_at_once(tmp_path):
    failed = measured(1.0, status="failed", error="ran out of patience", latency_s=None, samples_s=None, valid=False)
    told = verdict_of(tmp_path / "broken", [[measured(1.0)], [failed]])
    assert kinds(told) == [("broken", day(1))]
    assert told.findings[0].reason == "ok before, failed now: ran out of patience"
    told = verdict_of(tmp_path / "mended", [[failed], [measured(1.0)]])
    assert kinds(told) == [("mended", day(1))]


def test_computed_times_are_judged_by_any_difference(tmp_path):
    def nights(*times):
        return [[measured(time, source="predicted", samples_s=None, host=None)] for time in times]

    assert kinds(verdict_of(tmp_path / "a", nights(1.0, 1.0))) == []
    assert kinds(verdict_of(tmp_path / "b", nights(1.0, 1.01))) == [("changed", day(1))]
    assert kinds(verdict_of(tmp_path / "c", nights(1.0, 1.06))) == [("slower", day(1))]


def test_another_host_is_said_and_not_called_fine(tmp_path):
    told = verdict_of(tmp_path, [[measured(1.0)], [measured(1.0)], [measured(1.3, host="renamed")]])
    assert kinds(told) == [("not judged", day(2))]
    assert told.compared_nothing
    assert headline(told) == "nothing was compared: none of 1 point has an earlier night that counts"
    assert told.findings[0].reason == "the first night on renamed cpu; earlier nights were on h cpu"
    assert [each.label for each in told.missing] == [told.findings[0].history.label]


def test_a_night_is_its_folder_and_a_damaged_row_costs_no_other(tmp_path):
    late = measured(1.0, created_at="2026-03-03T00:10:00.000+00:00")
    stored(tmp_path, [[measured(1.0)], [late], [measured(1.0, created_at="2026-03-03T02:00:00.000+00:00")]])
    (part,) = (tmp_path / day(0) / "rows").iterdir()
    part.write_text(part.read_text() + "{truncated\n")
    nights = read_nights(tmp_path)
    assert [night.day for night in nights] == [day(0), day(1), day(2)]
    (history,) = histories(nights)
    assert len(history.answers) == 3
    told = judge(nights, RULES, threshold=0.05)
    (line,) = told.damaged
    assert line.endswith("line 2: is truncated or not JSON")
    assert "Damaged rows" in markdown(told)
    assert read_nights(tmp_path, until=day(1))[-1].day == day(1)
    assert read_nights(tmp_path / "no-such") == []


def test_a_first_night_a_new_point_and_a_missing_one(tmp_path):
    told = verdict_of(tmp_path / "first", [[measured(1.0)]])
    assert headline(told) == "first night: 1 point and nothing to compare with"
    other = measured(1.0, batch_size=8)
    told = verdict_of(tmp_path / "other", [[measured(1.0)], [other]])
    assert (len(told.first), len(told.missing), told.judged) == (1, 1, 0)
    assert told.compared_nothing


def test_hostile_text_stays_text_and_the_json_is_what_the_action_reads(tmp_path):
    bad = "a|b <script>\nx"
    nights = stored(tmp_path, [[measured(1.0, model=bad)], [measured(1.0, model=bad, status="failed", error=bad)]])
    page = markdown(judge(nights, RULES, threshold=0.05))
    assert "<script>" not in page
    assert "a\\|b &lt;script> x" in page
    json.dumps(plain(judge(nights, RULES, threshold=0.05)))
    (entry,) = action_benchmark(nights[0], histories(nights[:1]))
    assert entry["unit"] == "ms"
    assert entry["value"] == 1000.0
    assert entry.keys() == {"name", "unit", "value", "range", "extra"}

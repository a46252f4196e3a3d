"""What Overview, History and Compare are given: the verdict of the night itself, every history, sound pairs."""

import json
import math

import numpy as np
import pytest
from builders.rows import a_row
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.compare.nights.judge import judge
from bench.compare.nights.read import read_nights
from bench.compare.nights.steps import StepRules
from bench.compare.nights.summary import headline, plain
from bench.compare.verdicts import Rules
from bench.dashboard import compare, history, overview
from bench.dashboard.judged import Intervals, judged_nights, ratio_interval
from bench.dashboard.read import read
from bench.dashboard.write import data_of
from bench.measure.significance import Runs, between_processes, median_ratio
from bench.measure.stats import median_interval
from bench.rows.store import Store

RULES = StepRules()
QUIET = [1.0, 1.004, 0.998, 1.002, 0.999, 1.003, 0.997]


def day(number):
    return f"2026-03-{number + 1:02}"


def measured(time, number=0, **changes):
    made = f"{day(number)}T02:00:00.000+00:00"
    content = {"latency_s": time, "samples_s": [time], "valid": True, "host": "h", "device_kind": "cpu"}
    return a_row(**(content | {"created_at": made, "point_id": f"at-{number}"} | changes))


def predicted(time, **changes):
    content = {"source": "predicted", "engine": "analytic", "latency_s": time, "valid": True, "host": "h"}
    return a_row(**(content | changes))


def stored(folder, nights):
    for number, rows in enumerate(nights):
        Store(folder / day(number)).append(rows)
    return read(folder)


def judged(folder, nights, rules=RULES):
    return judged_nights(stored(folder, nights), rules, 0.05)


def nights_of(times, **changes):
    return [[measured(time, number, **changes)] for number, time in enumerate(times)]


@pytest.mark.parametrize("rules", [RULES, StepRules(smallest=0.2), StepRules(false_alarms=0.05)])
def test_the_page_says_what_the_night_said_by_the_rules_that_it_was_run_with(tmp_path, rules):
    times = [*QUIET, 1.1, 1.101]
    found = stored(tmp_path, nights_of(times))
    page = data_of(found, tmp_path, "t", Rules(threshold=0.05), rules)["overview"]
    told = judge(read_nights(tmp_path), rules, 0.05)
    assert page["headline"] == headline(told)
    assert [(each["kind"], each["since"], each["ratio"]) for each in page["findings"]] == [
        (each.kind, each.since, each.ratio) for each in told.findings
    ]
    assert page["worse"] == plain(told)["regressions"] == (0 if rules.smallest == 0.2 else 1)


def test_nothing_compared_is_never_good(tmp_path):
    first = overview.data(judged(tmp_path / "first", nights_of([1.0])))
    young = overview.data(judged(tmp_path / "young", nights_of([1.0, 1.0, 1.0])))
    moved = overview.data(judged(tmp_path / "moved", [*nights_of(QUIET), [measured(1.0, 7, host="renamed")]]))
    quiet = overview.data(judged(tmp_path / "quiet", nights_of(QUIET)))
    assert [each["state"] for each in (first, young, moved, quiet)] == ["unknown", "unknown", "unknown", "good"]
    assert young["headline"] == "too early to compare: a step needs 4 nights, and no point has more than 3"
    assert moved["machines"][0] == {**moved["machines"][0], "machine": "renamed cpu", "compared": False}
    assert [each["machine"] for each in moved["machines"]] == ["renamed cpu", "h cpu"]


def test_a_machine_that_nothing_was_compared_on_is_no_good_night_though_others_were(tmp_path):
    nights = [[measured(time, n), predicted(2.0)] for n, time in enumerate(QUIET)]
    nights.append([measured(1.0, 7, host="renamed"), predicted(2.0)])
    found = judged(tmp_path, nights)
    assert found.verdict.judged == 1
    assert found.verdict.not_compared == [("renamed", "cpu")]
    assert overview.data(found)["state"] == "unknown"
    assert headline(found.verdict).endswith("nothing compared on renamed cpu")


def test_out_of_memory_is_an_answer_of_its_own_and_not_invalid(tmp_path):
    ends = [("oom", "needs 99 GiB"), ("failed", "crashed")]
    rows = [
        predicted(None, status=status, error=why, batch_size=n, valid=False) for n, (status, why) in enumerate(ends, 1)
    ]
    rows += [predicted(1.0), predicted(1.0, batch_size=9, valid=False, invalid_reason="too noisy")]
    (line,) = overview.data(judged(tmp_path, [rows]))["coverage"]
    assert line["outcomes"] == {"out of memory": 1, "failed": 1, "valid": 1, "not valid": 1}


def test_what_is_slower_or_broken_stays_told_on_every_night_until_it_is_gone(tmp_path):
    failed = {"status": "failed", "error": "crashed", "latency_s": None, "samples_s": None, "valid": False}
    nights = nights_of([*QUIET, 1.1, 1.1, 1.1, 1.1])
    for number, rows in enumerate(nights):
        rows.append(predicted(1.0 if number < 8 else 1.2))
        rows.append(measured(1.0, number, batch_size=8, **({} if number < 8 else failed)))
    said = {(each["kind"], each["since"]) for each in overview.data(judged(tmp_path / "still", nights))["findings"]}
    assert said == {("still slower", day(7)), ("still slower", day(8)), ("still broken", day(8))}
    for number in range(11, 13):
        back = measured(1.0, number, batch_size=8)
        nights.append([measured(1.0, number), predicted(1.0), back])
    assert overview.data(judged(tmp_path / "gone", nights[:-1]))["findings"][0]["kind"] == "still slower"
    assert {each["kind"] for each in overview.data(judged(tmp_path / "back", nights))["findings"]} == {"faster"}


def test_a_slow_drift_is_one_regression_since_its_first_nights_by_its_whole_ratio(tmp_path):
    times = [*QUIET, *(1.03**n for n in range(1, 24))]
    (said,) = [
        each
        for each in overview.data(judged(tmp_path / "measured", nights_of(times)))["findings"]
        if each["kind"] == "still slower"
    ]
    assert said["since"] <= day(10)
    assert said["ratio"] > 1.6
    times = [1.0, *(1.01**n for n in range(1, 12))]  # of computed times, each less than the threshold
    folder = tmp_path / "computed"
    found = stored(folder, [[predicted(time)] for time in times])
    told = [judge(read_nights(folder, until=day(n)), RULES, 0.05) for n in range(2, len(times))]
    worse = [(verdict.day, each.since) for verdict in told for each in verdict.worse]
    assert worse == [(day(5), day(1))]
    assert overview.data(judged_nights(found, RULES, 0.05))["findings"][0]["ratio"] == pytest.approx(1.01**11)


def test_every_history_has_its_answers_steps_and_what_changed(tmp_path):
    times = [*QUIET, 1.1, 1.101]
    nights = [[measured(t, n, git_sha=("a" if n < 7 else "b") * 40)] for n, t in enumerate(times)]
    for number, rows in enumerate(nights):
        rows += [measured(2.0, number, batch_size=size) for size in range(10, 30)]
    found = history.data(judged(tmp_path, nights))
    points = found["points"]
    assert len(points) == 21
    assert all(len(each["rows"]) == len(each["days"]) == 9 for each in points)
    (step,) = points[0]["steps"]
    assert (step["at"], step["confirmed"], step["changed"]) == (7, 8, ["commit aaaaaaaaaaaa → bbbbbbbbbbbb"])
    assert points[0]["told"][0]["kind"] == "slower"
    json.dumps(found, allow_nan=False)


def test_a_store_that_is_no_night_is_told_by_the_dates_of_its_rows(tmp_path):
    Store(tmp_path).append([measured(1.0, number) for number in range(3)])
    found = judged_nights(read(tmp_path), RULES, 0.05)
    assert (found.by_date, found.days) == (True, [day(0), day(1), day(2)])
    assert judged_nights(read(tmp_path / "none"), RULES, 0.05) is None


def keys_of(folder, nights):
    found = stored(folder, nights)
    made = compare.data(judged_nights(found, RULES, 0.05), found)
    return {each["name"]: each for each in made["keys"]}, found


def pairs_of(key):
    """(row, row) of all pairs of a key whose values differ, as the page makes them."""
    places = range(len(key["rows"]))
    return {
        (key["rows"][a], key["rows"][b])
        for a in places
        for b in places
        if key["rest"][a] == key["rest"][b] and key["value"][a] < key["value"][b]
    }


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ws_1d", "ws_2d", "auto"]),
            st.sampled_from(["heads", "batch"]),
            st.sampled_from([1, 2]),
            st.sampled_from(["jax", "torch"]),
        ),
        unique=True,
        min_size=2,
        max_size=12,
    )
)
@settings(max_examples=25, deadline=None)
def test_rows_are_paired_that_differ_in_the_chosen_key_alone(points):
    from pathlib import Path

    from bench.compare.nights.read import Night
    from bench.dashboard.read import Stored

    rows = [
        measured(1.0, ffn_layout=ffn, attn_sharding=attn, batch_size=size, engine=engine, point_id=str(place))
        for place, (ffn, attn, size, engine) in enumerate(points)
    ]
    nights = [Night(day=day(0), store=Path(day(0)), rows=rows)]
    found = Stored(rows=rows, stores=[day(0)] * len(rows), nights=nights, damaged=[])
    keys = {each["name"]: each for each in compare.data(judged_nights(found, RULES, 0.05), found)["keys"]}

    def differing(a, b):
        return {
            name for name, x, y in zip(("ffn", "attn", "size", "engine"), points[a], points[b], strict=True) if x != y
        }

    allowed = {"ffn_layout": {"ffn"}, "attn_sharding": {"attn"}, "batch_size": {"size"}, "engine": {"engine"}}
    for name, only in allowed.items():
        made = {frozenset(pair) for pair in pairs_of(keys[name])} if name in keys else set()
        expected = {
            frozenset((a, b)) for a in range(len(rows)) for b in range(a) if differing(a, b) and differing(a, b) <= only
        }
        assert made == expected
    if "layout" in keys:
        assert all(differing(a, b) <= {"ffn", "attn"} for a, b in pairs_of(keys["layout"]))


def test_nights_stores_and_engines_stand_side_by_side(tmp_path):
    nights = [[measured(1.0 + n / 10, n), predicted(0.9)] for n in range(2)]
    keys, found = keys_of(tmp_path / "nights", nights)
    assert keys["night"]["values"] == [day(0), day(1)]
    assert "store" not in keys
    (pair,) = pairs_of(keys["engine"])
    assert {found.rows[place].engine for place in pair} == {"jax", "analytic"}
    Store(tmp_path / "stores" / "a").append([measured(1.0)])
    Store(tmp_path / "stores" / "b").append([measured(1.5, 1), measured(1.5, batch_size=8)])
    found = read(tmp_path / "stores")
    (key,) = [
        each for each in compare.data(judged_nights(found, RULES, 0.05), found)["keys"] if each["name"] == "store"
    ]
    assert (key["values"], key["times"]) == (["a", "b"], [1.0, 1.5])


def test_the_ratio_has_the_interval_that_compare_computes():
    generator = np.random.default_rng(3)
    old, new = 0.02 * generator.lognormal(0, 0.05, 40), 0.023 * generator.lognormal(0, 0.03, 40)
    ends = [(float(np.median(each)), median_interval(each, 0.95, 4000, seed=1)) for each in (old, new)]
    low, high = ratio_interval(*ends)
    bootstrap = median_ratio(list(old), list(new), 0.95, 4000, seed=1)
    width = math.log(bootstrap.ci_high / bootstrap.ci_low)
    assert math.log(low / bootstrap.ci_low) == pytest.approx(0, abs=0.2 * width)
    assert math.log(high / bootstrap.ci_high) == pytest.approx(0, abs=0.2 * width)
    assert ratio_interval((1.0, None), (2.0, None)) is None
    assert ratio_interval((1.0, None), (2.0, (1.9, 2.2))) == pytest.approx((1.9, 2.2))


def test_the_interval_of_several_processes_is_that_between_processes(tmp_path):
    processes = [(1.0, 1.02, 0.99), (1.1, 1.13, 1.09)]
    nights = [
        [measured(t, n, created_at=f"{day(n)}T0{i}:00:00.000Z") for i, t in enumerate(p)]
        for n, p in enumerate(processes)
    ]
    found = judged(tmp_path, nights)
    (point,) = found.verdict.points
    intervals = Intervals([point.history])
    ends = [(each.time_s, intervals.of(point.history, each)) for each in point.history.answers]
    ((expected, _),) = between_processes([Runs(old=processes[0], new=processes[1])], 0.95)
    low, high = ratio_interval(*ends)
    # Around the ratio of medians, where compare has that of means of logarithms.
    assert high / low == pytest.approx(expected.ci_high / expected.ci_low, rel=1e-3)
    page = history.data(found)["points"][0]
    assert page["processes"] == [3, 3]
    assert "times" not in page  # the rows that stand for the nights have them

"""Shifts that are there are found, and chance is not called a shift."""

import json
from dataclasses import replace

import numpy as np
import pytest
from builders.rows import a_row

from bench.cli.args import parse
from bench.cli.main import main
from bench.compare.verdicts import Rules, compare, settled
from bench.rows.store import Store
from bench.rows.timed_by import timing_remarks
from engines.compiled.cost.version import timing_model

GENERATOR = np.random.default_rng(11)


def measured(samples, **changes):
    samples = [float(each) for each in samples]
    content = {"host": "a", "device_kind": "cpu", "valid": True, "latency_s": float(np.median(samples))}
    return a_row(samples_s=samples, n=len(samples), **{**content, **changes})


def noise(shift=1.0, size=30):
    return shift * GENERATOR.lognormal(0, 0.03, size)


def predicted(latency_s, **changes):
    return a_row(source="predicted", engine="analytic", latency_s=latency_s, valid=True, **changes)


def verdicts(old, new, **rules):
    return [change.verdict for change in compare(old, new, Rules(**rules)).changes]


def test_a_shift_beyond_the_threshold_is_found_both_ways():
    assert verdicts([measured(noise())], [measured(noise(1.2))]) == ["slower"]
    assert verdicts([measured(noise(1.2))], [measured(noise())]) == ["faster"]


def test_a_sure_shift_within_the_threshold_is_no_regression():
    found = compare([measured(noise(size=200))], [measured(noise(1.02, 200))], Rules())
    assert [change.verdict for change in found.changes] == ["same"]
    assert found.changes[0].p_value < 0.01
    assert verdicts([measured(noise(size=200))], [measured(noise(1.02, 200))], threshold=0.01) == ["slower"]


def test_a_large_shift_of_few_samples_may_be_chance():
    found = compare([measured([1.0, 1.1])], [measured([2.0, 2.1])], Rules())
    assert [(change.verdict, change.reason) for change in found.changes] == [("same", "not significant")]


def test_no_shift_gives_no_false_alarm_over_many_points():
    old = [measured(GENERATOR.lognormal(0, 0.3, 12), batch_size=size) for size in range(1, 301)]
    new = [measured(GENERATOR.lognormal(0, 0.3, 12), batch_size=size) for size in range(1, 301)]
    found = compare(old, new, Rules())
    # Without Holm, about three of three hundred would be called significant at 0.01.
    assert max(change.ratio.value for change in found.changes) > 1.05
    assert found.regressions == []


def test_one_regression_among_many_is_still_found():
    old = [measured(noise(), batch_size=size) for size in range(1, 101)]
    new = [measured(noise(1.3 if size == 50 else 1.0), batch_size=size) for size in range(1, 101)]
    found = compare(old, new, Rules())
    assert [change.new.batch_size for change in found.regressions] == [50]
    assert found.changes[0].new.batch_size == 50


def test_the_ratio_is_of_medians_with_its_interval():
    (change,) = compare([measured([1.0, 2.0, 3.0])], [measured([3.0, 4.0, 5.0])], Rules()).changes
    assert change.ratio.value == 2.0
    assert change.ratio.ci_low <= 2.0 <= change.ratio.ci_high


@pytest.mark.parametrize("changes", [{"host": "b"}, {"device_kind": "TPU v4"}])
def test_other_machines_are_flagged_and_not_judged_unless_asked(changes):
    old, new = measured(noise()), measured(noise(2.0), **changes)
    found = compare([old], [new], Rules())
    assert found.regressions == []
    assert found.changes[0].verdict == "not judged"
    assert next(iter(changes)) in found.changes[0].reason
    assert found.changes[0].ratio.value == pytest.approx(2.0, rel=0.05)
    assert verdicts([old], [new], allow_hosts=True) == ["slower"]


def test_a_row_that_is_not_valid_is_not_judged():
    new = measured(noise(2.0), valid=False, invalid_reason="interval is wide")
    (change,) = compare([measured(noise())], [new], Rules()).changes
    assert (change.verdict, change.reason) == ("not judged", "not valid now: interval is wide")


def test_an_output_that_became_wrong_is_broken():
    good = {"max_relative_error": 1e-7, "details": {"tolerance": 1e-5}}
    bad = {"max_relative_error": 0.5, "details": {"tolerance": 1e-5}, "valid": False, "invalid_reason": "differs"}
    assert verdicts([measured(noise(), **good)], [measured(noise(), **bad)]) == ["broken"]
    assert verdicts([measured(noise(), **bad)], [measured(noise(), **bad)]) == ["not judged"]


def test_an_answer_lost_or_found_is_told():
    lost = a_row(status="failed", error="a bug")
    (change,) = compare([measured(noise())], [lost], Rules()).changes
    assert (change.verdict, change.reason) == ("broken", "ok before, failed now: a bug")
    assert verdicts([lost], [measured(noise())]) == ["mended"]
    assert verdicts([lost], [lost]) == ["same"]
    assert verdicts([lost], [replace(lost, status="oom")]) == ["changed"]


def test_computed_times_compare_exactly():
    assert verdicts([predicted(1.0)], [predicted(1.0)]) == ["same"]
    assert verdicts([predicted(1.0)], [predicted(1.0 + 1e-12)]) == ["same"]
    assert verdicts([predicted(1.0)], [predicted(1.0 + 1e-6)]) == ["changed"]
    assert verdicts([predicted(1.0)], [predicted(1.06)]) == ["slower"]
    assert verdicts([predicted(1.06)], [predicted(1.0)]) == ["faster"]


def test_computed_times_compare_across_hosts():
    assert verdicts([predicted(1.0, host="a")], [predicted(1.0, host="b")]) == ["same"]


def test_what_an_engine_chose_is_not_part_of_the_question():
    old = predicted(1.0, ffn_layout="ws_1d", chosen=["ffn_layout"])
    new = predicted(0.5, ffn_layout="ws_2d", chosen=["ffn_layout"])
    assert verdicts([old], [new]) == ["faster"]
    asked = predicted(0.5, ffn_layout="ws_2d")
    found = compare([old], [asked], Rules())
    assert found.changes == []
    assert (found.only_old, found.only_new) == ([old], [asked])


def test_evidence_of_different_kinds_is_never_joined():
    same = {"engine": "x", "latency_s": 1.0}
    found = compare([a_row(source="predicted", **same)], [a_row(source="compiled", **same)], Rules())
    assert found.changes == []


def test_the_newest_row_counts():
    assert verdicts([predicted(1.0), predicted(2.0)], [predicted(2.0)]) == ["same"]


def test_a_point_measured_again_the_same_day_counts_as_its_fastest_run():
    day, later, next_day = (f"2026-01-0{number}T03:00:00.000+00:00" for number in (2, 2, 3))
    disturbed, quiet = measured(noise(2.0), created_at=day), measured(noise(), created_at=later)
    for order in ([disturbed, quiet], [quiet, disturbed]):
        assert settled(order) == [quiet]
        assert verdicts([measured(noise())], order) == ["same"]
    assert verdicts([measured(noise())], [disturbed, measured(noise(1.9), created_at=later)]) == ["slower"]
    # Another day, other code, a failure and a wrong output are things of their own.
    others = [
        measured(noise(2.0), created_at=next_day),
        measured(noise(2.0), point_id="other code", created_at=next_day),
        a_row(status="failed", error="a bug", created_at=next_day),
        measured(noise(), max_relative_error=0.5, details={"tolerance": 1e-5}, valid=False, created_at=next_day),
    ]
    assert len(settled([quiet, *others])) == 5
    assert settled([measured([0.5], valid=False), quiet]) == [quiet]


def processes(*shifts, day=2, **changes):
    """A row a process: its samples hardly scatter, whatever the machine did meanwhile."""
    return [
        measured(shift * GENERATOR.lognormal(0, 0.001, 10), created_at=f"2026-01-0{day}T0{hour}:00:00+00:00", **changes)
        for hour, shift in enumerate(shifts)
    ]


def test_medians_of_processes_are_compared_and_not_samples_of_one():
    old, new = processes(1.0, 1.1, 0.9), processes(1.2, 1.05, 1.1, day=3)
    # The fastest of each is 17% apart, far beyond what samples of one process leave to chance.
    assert verdicts(old, new) == ["slower"]
    (change,) = compare(old, new, Rules(by_process=True)).changes
    assert (change.verdict, change.reason) == ("same", "not significant")
    assert sorted(change.runs.old) == pytest.approx([0.9, 1.0, 1.1], rel=0.01)
    assert (change.old.latency_s, change.new.latency_s) == pytest.approx((1.0, 1.1), rel=0.01)  # those in the middle
    assert verdicts(old, processes(2.0, 2.1, 1.9, day=3), by_process=True) == ["slower"]
    assert verdicts(processes(2.0, 2.1, 1.9), processes(1.0, 1.1, 0.9, day=3), by_process=True) == ["faster"]


def test_one_night_of_a_single_process_is_still_compared_by_processes():
    old, new = processes(1.0), processes(2.0, 2.1, 1.9, day=3)
    (change,) = compare(old, new, Rules(by_process=True)).changes
    assert (len(change.runs.old), len(change.runs.new)) == (1, 3)
    assert change.verdict == "slower"
    # Where every point has but one, samples are all there is.
    (change,) = compare(old, processes(2.0, day=3), Rules(by_process=True)).changes
    assert (change.verdict, change.runs) == ("slower", None)


def test_other_code_other_days_and_invalid_rows_are_no_processes_of_a_point():
    old = [
        *processes(9.0, day=1),
        *processes(9.0, point_id="other code"),
        *processes(9.0, valid=False, invalid_reason="wide"),
        *processes(1.0, 1.01),
    ]
    (change,) = compare(old, processes(1.0, 1.01, day=3), Rules(by_process=True)).changes
    assert change.runs.old == pytest.approx([1.0, 1.01], rel=0.01)


def test_what_is_no_measurement_is_judged_by_process_as_ever():
    lost = a_row(status="failed", error="a bug", created_at="2026-01-03T09:00:00+00:00")
    old = [*processes(1.0, 1.1), predicted(1.0, batch_size=9)]
    new = [*processes(1.0, 1.1, day=3), lost, predicted(1.2, batch_size=9)]
    found = compare(old, new, Rules(by_process=True))
    assert [change.verdict for change in found.changes] == ["broken", "slower"]


def stores(tmp_path, old, new):
    Store(tmp_path / "old").append(old)
    Store(tmp_path / "new").append(new)
    return "compare", f"old={tmp_path / 'old'}", f"new={tmp_path / 'new'}"


def test_exit_codes_and_json(tmp_path, capsys):
    words = stores(
        tmp_path,
        [measured(noise()), predicted(1.0), predicted(1.0, batch_size=9)],
        [measured(noise(1.5)), predicted(1.0), predicted(1.0, batch_size=10)],
    )
    assert main([*words, "print=json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["regressions"] == 1
    assert [each["verdict"] for each in found["points"]] == ["slower", "same"]
    assert found["points"][0]["ratio_ci_low"] > 1.4
    assert len(found["only_old"]) == len(found["only_new"]) == 1
    assert found["points"][0]["old_processes_s"] is None
    assert main([*words, "threshold=0.9"]) == 0
    capsys.readouterr()
    assert main([*words, "by_process=true", "print=json"]) == 1
    assert json.loads(capsys.readouterr().out)["regressions"] == 1
    assert main([*words, "threshold=0.9"]) == 0
    assert "2 points in both stores: 2 same" in capsys.readouterr().out
    assert main(list(words)) == 1
    out = capsys.readouterr().out
    assert "slower" in out
    assert "only old: tiny on 8 cpu, decode, batch 9" in out


def test_stores_without_a_common_point_are_no_success(tmp_path, capsys):
    words = stores(tmp_path, [predicted(1.0, batch_size=9)], [predicted(1.0, batch_size=10)])
    assert main(list(words)) == 3
    assert "nothing was compared: no point is in both stores" in capsys.readouterr().err


@pytest.mark.parametrize(
    "word", ["threshold=-1", "threshold=five", "alpha=1", "alpha=0", "allow_hosts=maybe", "by_process=3"]
)
def test_a_wrong_rule_is_one_line(tmp_path, capsys, word):
    assert main([*stores(tmp_path, [predicted(1.0)], [predicted(1.0)]), word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line


def test_an_empty_store_or_a_missing_key_is_one_line(tmp_path, capsys):
    Store(tmp_path / "old").append([predicted(1.0)])
    assert main(["compare", f"old={tmp_path / 'old'}", f"new={tmp_path / 'none'}"]) == 2
    assert f"new={tmp_path / 'none'}: holds no rows" in capsys.readouterr().err
    assert main(["compare", f"old={tmp_path / 'old'}"]) == 2
    assert "new" in capsys.readouterr().err


def test_the_examples_parse():
    from bench.cli.commands import compare as command

    for example in command.EXAMPLES:
        assert parse("compare", example.split()[2:], command.KEYS, command.VERBS)[1]["old"]


def test_compiled_times_of_two_timing_models_are_told_apart():
    def compiled(latency_s, **details):
        return a_row(source="compiled", engine="compiled", latency_s=latency_s, valid=True, details=details)

    untold, first = compiled(1.0), compiled(1.0, **timing_model(["fusion"]))
    present = compiled(2.0, **timing_model(["fusion", "scatter"]))
    (change,) = compare([first], [present], Rules()).changes
    assert (change.verdict, change.reason) == ("slower", "timing model 2 → 3")
    (change,) = compare([untold], [present], Rules()).changes
    assert change.reason == "timing model unknown → 3"
    (change,) = compare([first], [replace(first, latency_s=2.0)], Rules()).changes
    assert change.reason == ""
    # Programs of both versions stand beside each other where each has its present one.
    old = compiled(1.0, timing_model={"version": 2, "instructions": ["scatter"]})
    assert timing_remarks([first, present, predicted(1.0)]) == []
    assert timing_remarks([first, present, old, untold])[0].startswith(
        "2 of 4 compiled rows were timed by an earlier version of the timing model (1 by one that they do not tell, "
        "1 by version 2)"
    )

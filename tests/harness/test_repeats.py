"""repeat=N: several processes measure each point, in turn or one after the other, and one row holds what all found."""

import json
from statistics import median, stdev

import pytest

from bench.run.repeats import _visits


def test_the_order_of_visits():
    assert _visits(2, 3, "interleaved") == [0, 1, 0, 1, 0, 1]
    assert _visits(2, 3, "sequential") == [0, 0, 0, 1, 1, 1]


def test_each_repeat_is_a_process_of_its_own(shardbench, monkeypatch):
    words = shardbench.scripted("batch_size=[1,2]", "repeat=2", "order=interleaved", "print=none")
    assert shardbench.here(monkeypatch, *words) == 0
    pids, executed = zip(*shardbench.executed(), strict=True)
    assert executed == (1, 2, 1, 2)
    assert len(set(pids)) == 4
    rows = shardbench.stored()
    assert {row["batch_size"] for row in rows} == {1, 2}
    for row in rows:
        medians = row["process_medians_s"]
        assert len(medians) == 2
        assert row["latency_s"] == median(medians)
        assert row["process_spread"] == pytest.approx(stdev(medians) / median(medians))
        counts = [each["samples"] for each in row["details"]["processes"]]
        assert row["n"] == sum(counts) == len(row["samples_s"]) == len(row["details"]["stages_s"]["decode"])
        assert median(row["samples_s"][: counts[0]]) == medians[0]
        assert median(row["samples_s"][counts[0] :]) == medians[1]
    # They answer the same question, and not that of one process.
    shardbench.log.unlink()
    assert shardbench.here(monkeypatch, *words) == 0
    assert not shardbench.log.exists()
    assert shardbench.here(monkeypatch, *shardbench.scripted("batch_size=1", "print=none")) == 0
    assert len(shardbench.executed()) == 1


def test_engines_are_compared_in_turn(shardbench, monkeypatch):
    """Two jobs of the scripted engine, which differ in a setting."""
    base = shardbench.scripted("order=interleaved", "repeat=2", "batch_size=1", "print=none")
    words = ["run", "-m", *base[1:], "+engine.pause_s=0.001,0.002"]
    assert shardbench.here(monkeypatch, *words) == 0
    rows = sorted(shardbench.stored(), key=lambda row: row["latency_s"])
    assert [row["latency_s"] >= pause for row, pause in zip(rows, (0.001, 0.002), strict=True)] == [True, True]
    settings = [row["conditions"]["settings"]["pause_s"] for row in rows]
    assert settings == [0.001, 0.002]
    assert len({pid for pid, _ in shardbench.executed()}) == 4


def test_what_fails_is_over_and_the_others_go_on(shardbench, monkeypatch):
    words = shardbench.scripted("batch_size=[101,1,104]", "repeat=2", "order=interleaved", "print=none")
    assert shardbench.here(monkeypatch, *words) == 3
    assert [size for _, size in shardbench.executed()] == [101, 1, 104, 1]
    by_size = {row["batch_size"]: row for row in shardbench.stored()}
    assert {size: row["status"] for size, row in by_size.items()} == {1: "ok", 101: "failed", 104: "oom"}


def test_one_process_that_is_wrong_makes_the_row_not_valid(shardbench, monkeypatch):
    assert shardbench.here(monkeypatch, *shardbench.scripted("batch_size=107", "repeat=2", "print=none")) == 0
    (row,) = shardbench.stored()
    assert not row["valid"]
    assert row["invalid_reason"].startswith("process 1: output differs from the script")
    assert "process 2: output differs from the script" in row["invalid_reason"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("repeat=0",), "repeat=0: must be an integer ≥ 1"),
        (("order=random",), "order=random: is not known; use one of sequential, interleaved"),
        (("repeat=2", "engine.isolated=false"), "repeat=2: needs processes of their own"),
        (("repeat=2", "max_parallel=2"), "max_parallel=2: would disturb the processes of repeat="),
    ],
)
def test_what_cannot_be_repeated_is_refused(shardbench, monkeypatch, capsys, words, said):
    assert shardbench.here(monkeypatch, *shardbench.scripted("batch_size=1", *words)) == 2
    assert said in capsys.readouterr().err


def test_what_times_itself_is_not_repeated_and_what_predicts_is_asked_once(shardbench, monkeypatch, capsys):
    words = ("run", "model=llama-7b", "hw=a100-80gb", "num_chips=1", "repeat=2", "wandb.mode=disabled")
    assert shardbench.here(monkeypatch, *words, "engine=vllm") == 2
    assert "repeat=2: engine=vllm times its own runs" in capsys.readouterr().err
    assert shardbench.here(monkeypatch, *words, "engine=analytic", "print=json") == 0
    assert json.loads(capsys.readouterr().out)["process_medians_s"] is None

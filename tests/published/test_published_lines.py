"""Every line of every published table is a case: unique, plausible, and in contradiction with no other."""

import csv
import math
from collections import Counter, defaultdict

import pytest

from bench.validate.contradictions import contradictions
from bench.validate.csv_cases import read_cases
from engines.published.table import published_rows, read_table, tables

TODAY = ("deepspeed-bloom", "transformers", "gpt-fast", "lmdeploy-0.2", "tensorrt-llm-0.5", "tensorrt-llm-0.6",
         "tensorrt-llm-h200", "jax-llm-examples", "maxtext")  # fmt: skip


@pytest.fixture(scope="module")
def cases():
    return {name: read_cases(path, "analytic") for name, path in tables().items()}


def test_every_line_is_a_case_of_a_known_model_and_chip(cases):
    for name, path in tables().items():
        assert not cases[name].unused
        assert len(cases[name].cases) == len(read_table(path.name)) > 0
    assert len(published_rows()) == sum(len(each.cases) for each in cases.values())


def test_no_line_stands_twice_and_no_two_contradict_each_other(cases):
    every = [case for reading in cases.values() for case in reading.cases]
    assert Counter((case.point, case.system) for case in every).most_common(1)[0][1] == 1
    assert contradictions(every) == []


@pytest.mark.parametrize("table", ["paper_table_d2.csv", "paper_table_d3.csv", "paper_table_d4.csv"])
def test_the_papers_prefill_and_decode_add_up(table):
    times = defaultdict(dict)
    for line in read_table(table):
        times[line["model"], line["batch_size"]][line["phase"]] = float(line["latency_s"])
    sums = [each for each in times.values() if len(each) == 3]
    assert sums
    for each in sums:
        # Each of the three is rounded to three digits or milliseconds.
        assert each["prefill"] + each["decode"] == pytest.approx(each["generate"], rel=0.005, abs=0.0016)


def test_the_papers_mfu_is_that_of_its_times():
    stated = [row for row in published_rows() if row.mfu is not None]
    size = {"palm-540b": 540e9, "palm-62b": 62.5e9, "mt-nlg-530b": 530e9}
    assert len(stated) > 100
    for row in stated:
        lengths = {"prefill": ("input_len",), "decode": ("output_len",), "generate": ("input_len", "output_len")}
        tokens = row.stated["batch_size"] * sum(row.stated[name] for name in lengths[row.stated["phase"]])
        flops = 2 * size[row.stated["model"]] * tokens
        found = flops / row.latency_s / (row.stated["num_chips"] * 275e12)
        assert found == pytest.approx(row.mfu, rel=0.02, abs=0.0075)


def test_rows_of_today_say_their_doubt_and_release_where_they_have_one(cases):
    for name in TODAY:
        for case in cases[name].cases:
            assert case.extra["doubt"]
    for row in published_rows():
        assert not any(ord(each) < 32 for each in row.doubt)
    assert all("330 W" in case.extra["doubt"] for case in cases["gpt-fast"].cases)


def test_a_cell_holds_no_more_than_its_value():
    for path in tables().values():
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                assert None not in line
                assert all(cell == cell.strip() for cell in line.values())
                assert (line["status"] == "oom") == (line["latency_s"] == "")
                assert line["latency_s"] == "" or math.isfinite(float(line["latency_s"]))

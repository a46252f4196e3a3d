"""The study of speculative decoding: which row is compared with which, and what is said of them."""

import pytest
from study_rows import BY_RECIPE, a_row_of

from bench.report.studies.rows import points_of
from bench.report.studies.speedups import SpeedUps, speed_up

STUDY = BY_RECIPE["study-speculative"]


@pytest.fixture(scope="module")
def rows():
    """A plain step takes 10 ms; a token that is proposed with others as many ms as rejected tokens in ten."""
    found = []
    for number, point in enumerate(points_of(STUDY.recipe)):
        seconds = (
            0.01 if point.acceptance_rate is None else 0.02 * (1 - point.acceptance_rate) + 0.001 * point.draft_len
        )
        found.append(a_row_of(point, seconds, point_id=str(number)))
    return found


def test_a_row_is_compared_with_plain_decoding_of_its_own_workload_and_evidence(rows):
    plain, *others = [row for row in rows if row.model == "palm-540b"]
    assert plain.speculative is None
    assert [speed_up(row, rows) for row in others[:2]] == pytest.approx([0.01 / 0.014, 0.01 / 0.010])
    assert speed_up(others[0], rows[1:]) is None


def test_the_finding_and_the_table_have_the_best_of_each_machine(rows):
    sentence, numbers = STUDY.find(rows)
    assert sentence == (
        "With an 8B draft PaLM 540B decodes up to 3.33× and Llama 3 70B decodes up to 3.33× as fast as without."
    )
    panel = "PaLM 540B, 64 × tpu-v4, batch 16"
    assert numbers[f"{panel}.speed_up"] == pytest.approx(0.01 / 0.003)
    assert (numbers[f"{panel}.draft_len"], numbers[f"{panel}.acceptance_rate"]) == (2, 0.95)
    assert numbers[f"{panel}.gains_from"] == 0.8
    table = SpeedUps().table("t", rows)
    assert [line["rate"] for line in table.rows] == [0.4, 0.6, 0.8, 0.95] * 2
    assert table.rows[0]["2"] == pytest.approx(0.01 / 0.014)
    assert STUDY.find(rows[:1]) is None

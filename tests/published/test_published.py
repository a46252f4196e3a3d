"""What was published is looked up, and never made up."""

from collections import defaultdict

import pytest
from builders.points import point

from bench.run.make_row import PointTask, estimated
from engines.core.errors import InvalidRequest
from engines.published.engine import PublishedEngine
from engines.published.systems import release_of
from engines.published.table import published_rows, read_table


def point_of(question, **changes):
    return point(engine="published", **{**question, **changes})


def of_system(system):
    return [row for row in published_rows() if row.system == system]


@pytest.mark.parametrize("system", sorted({row.system for row in published_rows()}))
def test_every_line_of_every_table_is_found_again(system):
    rows = of_system(system)
    answers = PublishedEngine(system=system).estimate([point_of(row.stated) for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        assert (answer.status, answer.latency_s, answer.published_mfu) == (row.status, row.latency_s, row.mfu)
        assert (answer.system, answer.reference) == (row.system, row.reference)
        assert answer.reference
        assert answer.facts.details.get("doubt", "") == row.doubt


def test_no_system_answers_the_questions_of_another():
    [row] = [row for row in of_system("deepspeed-inference") if row.status == "oom"]
    ours, other = (PublishedEngine(system=name) for name in ("deepspeed-inference", "gpt-fast"))
    assert [each.estimate([point_of(row.stated)])[0].status for each in (ours, other)] == ["oom", "unsupported"]
    assert ours.options != other.options
    with pytest.raises(InvalidRequest, match=r"engine.system=deepspede: is in no published table; use deepspeed-inf"):
        PublishedEngine(system="deepspede")


def test_the_newest_release_of_a_runtime_answers():
    twice = defaultdict(list)
    for row in published_rows():
        twice[tuple(sorted(row.stated.items()))].append(row)
    several = [rows for rows in twice.values() if rows[1:]]
    assert several
    for rows in several:
        [newest] = [row for row in rows if release_of(row.system) == max(release_of(each.system) for each in rows)]
        answer = PublishedEngine().estimate([point_of(newest.stated)])[0]
        assert (answer.latency_s, answer.system) == (newest.latency_s, newest.system)


@pytest.mark.parametrize(
    "changes", [{"batch_size": 63}, {"weight_dtype": "float16"}, {"attn_sharding": "heads"}, {"num_chips": 128}]
)
def test_what_nobody_published_is_unsupported(changes):
    row = next(row for row in published_rows() if row.stated["phase"] == "decode")
    (answer,) = PublishedEngine().estimate([point_of(row.stated, **changes)])
    assert answer.status == "unsupported"
    assert answer.latency_s is None
    assert "no published row for" in answer.error


def test_a_choice_left_open_is_answered_with_what_was_chosen():
    row = next(row for row in published_rows() if row.stated["phase"] == "decode")
    (answer,) = PublishedEngine().estimate([point_of(row.stated, ffn_layout="auto", attn_sharding="auto")])
    assert answer.latency_s == row.latency_s
    assert answer.facts.resolved == {"ffn_layout": "ws_2d", "attn_sharding": "batch"}


def test_a_choice_that_the_source_does_not_state_is_not_answered():
    row = next(row for row in published_rows() if "Table D.3" in row.reference and row.stated["model"] == "palm-540b")
    (answer,) = PublishedEngine().estimate([point_of(row.stated, attn_sharding="batch")])
    assert answer.status == "unsupported"


def test_the_first_token_of_all_but_the_papers_rows_comes_from_the_prefill():
    for row in published_rows():
        if row.stated["phase"] == "generate" and row.system != "paper":
            assert row.stated["first_token"] == "prefill"
        else:
            assert "first_token" not in row.stated
    row = next(row for row in published_rows() if row.system == "fastertransformer" and row.status == "ok")
    stated, left, other = PublishedEngine().estimate(
        [point_of(row.stated, first_token=first) for first in ("prefill", "auto", "decode")]
    )
    assert stated.latency_s == left.latency_s == row.latency_s
    assert left.facts.resolved == {"first_token": "prefill"}
    assert other.status == "unsupported"


def test_a_row_counts_the_steps_of_the_convention_that_its_engine_has():
    row = next(row for row in published_rows() if row.system == "fastertransformer" and row.status == "ok")
    stated, left = (point_of(row.stated, first_token=first) for first in ("prefill", "auto"))
    one, other = (
        estimated(PointTask(point=each, point_id="", source="published", sweep=None), answer)
        for each, answer in zip((stated, left), PublishedEngine().estimate([stated, left]), strict=True)
    )
    assert one.mbu == other.mbu
    assert (one.first_token, other.first_token) == ("prefill", "prefill")
    assert set(other.chosen) - set(one.chosen) == {"first_token"}


def test_the_memory_table_is_there_too():
    table = read_table("paper_table1.csv")
    assert [int(line["max_context_len"]) for line in table] == [1320, 330, 660, 165, 43000, 10700]


def test_every_row_is_a_point_that_its_runtime_can_run():
    for row in published_rows():
        point_of(row.stated).check()

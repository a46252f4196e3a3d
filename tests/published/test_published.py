"""What was published is looked up, and never made up."""

import pytest
from builders.points import point

from bench.run.make_row import PointTask, estimated
from engines.published.engine import PublishedEngine
from engines.published.table import published_rows, read_table


def point_of(question, **changes):
    return point(engine="published", **{**question, **changes})


def test_every_line_of_every_table_is_found_again():
    rows = published_rows()
    assert len(rows) == 6 + 36 + 81 + 180
    answers = PublishedEngine().estimate([point_of(row.stated) for row in rows])
    assert [(a.status, a.latency_s, a.published_mfu) for a in answers] == [(r.status, r.latency_s, r.mfu) for r in rows]
    assert all(answer.reference for answer in answers)


def test_out_of_memory_is_an_answer():
    assert sum(row.status == "oom" for row in published_rows()) == 9


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


def test_fastertransformers_first_token_comes_from_the_prefill():
    for row in published_rows():
        assert row.stated.get("first_token") == ("prefill" if row.system == "fastertransformer" else None)
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

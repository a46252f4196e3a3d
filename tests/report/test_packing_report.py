"""Padded over packed times: pairs, their bounds by hand, and what the report says of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.packing.pairs import LAWS, pairs_of
from bench.report.packing.report import packing_report
from bench.report.render import style
from engines.core.errors import ShardbenchError
from engines.core.row import Row
from engines.weights.lengths import draw_lengths


def row(padding, latency_s, **changes):
    asked = {"model": "tiny", "hw": "cpu", "num_chips": 1, "engine": "jax", "phase": "prefill", "batch_size": 4}
    sizes = {"input_len": 256, "output_len": 0, "weight_dtype": "float32", "lengths": "trace"}
    answer = {"source": "measured", "status": "ok", "valid": True, "latency_s": latency_s, "sweep": "packing"}
    return Row(**{**asked, **sizes, **answer, "padding": padding, **changes})


def both(padded_s, packed_s, **changes):
    return [row("padded", padded_s, **changes), row("packed", packed_s, details={"real_tokens": 384}, **changes)]


def test_a_pair_is_two_rows_that_differ_in_padding_alone():
    rows = [
        *both(0.4, 0.125),
        *both(0.4, 0.1, engine="torch"),
        row("packed", 0.05, batch_size=16),  # without a partner
        row("packed", 0.05, sweep="palm", batch_size=64),
        row("padded", 0.05, sweep="palm", batch_size=64),
    ]
    pairs = pairs_of(rows)
    assert {(pair.packed.engine, pair.ratio) for pair in pairs} == {("jax", 3.2), ("torch", 4.0)}
    # 4 prompts in rows of 256, of which 384 tokens are real.
    assert pairs[0].token_bound == 4 * 256 / 384


@given(law=st.sampled_from(LAWS), max_len=st.integers(8, 2048), batch=st.integers(1, 64), seed=st.integers(0, 99))
def test_no_batch_has_more_to_gain_from_tokens_than_from_scores(law, max_len, batch, seed):
    lengths = draw_lengths(law, batch, max_len, seed).astype(float)
    tokens, scores = batch * max_len / lengths.sum(), batch * max_len**2 / (lengths**2).sum()
    assert 1.0 <= tokens <= scores * (1 + 1e-9)
    [pair] = pairs_of(both(1.0, 1.0, lengths=law, input_len=max_len))
    assert 1.0 <= max_len / pair.law.mean <= pair.score_bound * (1 + 1e-9)


def test_the_report_tells_kinds_of_evidence_and_phases_apart():
    predicted = {"source": "predicted", "engine": "analytic", "model": "palm-540b", "hw": "tpu-v4", "num_chips": 64}
    rows = [
        *both(0.4, 0.125),
        *both(0.4, 0.1, batch_size=16, valid=False),
        *both(2.0, 1.0, **predicted),
        *both(1.01, 1.0, **predicted, phase="decode", output_len=64),
    ]
    made = packing_report(rows, "Padding")
    assert [(finding.sources, finding.numbers["median"]) for finding in made.findings] == [
        (("measured",), 3.2),
        (("predicted",), 2.0),
        (("predicted",), 1.01),
    ]
    measured = next(line for line in made.sections[0].tables[0].rows if line["source"] == "measured (jax)")
    assert measured["ratios"] == "4: 3.20, 16: 4.00 (not valid)"
    assert len(made.sections[1].linked[0].rows) == 4
    pytest.importorskip("matplotlib")
    with style.settings():
        (drawn,) = made.front.draw()
    assert [axis.get_title(loc="left").partition("\n")[0] for axis in drawn.figure.axes] == [
        "PaLM 540B on 64 tpu-v4",
        "tiny on 1 cpu",
    ]


def test_without_a_pair_the_command_is_named():
    with pytest.raises(ShardbenchError, match=r"\+sweep=packing"):
        packing_report([row("packed", 1.0)], "Padding")

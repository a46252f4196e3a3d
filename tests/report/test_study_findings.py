"""What each study finds in its rows."""

import re
from dataclasses import replace

import pytest
from study_rows import BY_RECIPE, NOWHERE, a_row_of

from bench.report.studies import findings
from bench.report.studies.registry import STUDIES
from bench.report.studies.report import studies_report
from bench.report.studies.rows import find_rows

pytestmark = pytest.mark.slow


def found_by(recipe, rows):
    return BY_RECIPE[recipe].find(rows)


def test_a_target_beside_what_was_published_and_what_bounds_it(points):
    one, steps, *_, prefill = points["study-targets"]
    assert (one.output_len, steps.output_len, prefill.phase) == (1, 64, "prefill")
    rows = [a_row_of(one, 0.020), a_row_of(steps, 0.030), a_row_of(prefill, 100.0), a_row_of(prefill)]
    sentence, numbers = found_by("study-targets", rows)
    # 1.82 s for 64 steps and 85.2 s for the prefill, as the paper's table 2 has them.
    assert numbers["decode, batch 64, int8, one step.published_s"] == pytest.approx(1.82 / 64)
    assert numbers["prefill, batch 512, bfloat16.relative"] == pytest.approx(100 / 85.2 - 1)
    assert numbers["decode, batch 64, int8, one step.bound_by"] == "memory"
    errors = [0.020 * 64 / 1.82 - 1, 0.030 * 64 / 1.82 - 1, 100 / 85.2 - 1]
    assert numbers["bias"] == pytest.approx(sum(errors) / 3)
    mean = sum(map(abs, errors)) / 3
    assert sentence == f"Compiled times differ from the published ones by {mean:.1%} on average over 3 points."
    assert found_by("study-targets", rows[:1])[0].startswith("Compiled times are shorter than the published ones by")
    assert found_by("study-targets", rows[2:3])[0].startswith("Compiled times exceed the published ones by 17.4%")
    assert findings.published_s(replace(rows[2], ffn_layout="ws_2d")) is None
    assert findings.published_s(replace(rows[0], input_len=4095)) is None
    assert found_by("study-targets", rows[3:]) is None


def test_two_dimensions_win_from_where_they_win_for_good(points):
    ws_1d = {8: 1.0, 16: 3.0, 32: 1.0, 64: 2.0, 128: 3.0}
    rows = [
        a_row_of(point, ws_1d.get(point.num_chips) if point.ffn_layout == "ws_1d" else 1.5)
        for point in points["study-1d-2d"]
        if point.model.name == "palm-62b"
    ]
    sentence, numbers = found_by("study-1d-2d", rows)
    assert sentence == "2D is faster than 1D from 64 chips on for PaLM 62B."
    assert numbers["palm-62b.from_chips"] == 64
    assert numbers["palm-62b.16"] == pytest.approx(2.0)
    assert "palm-62b.256" not in numbers  # 1D does not fit there


def test_one_dimension_may_win_everywhere(points):
    rows = [
        a_row_of(point, 1.0 if point.ffn_layout == "ws_1d" else 2.0)
        for point in points["study-1d-2d"]
        if point.model.name == "palm-540b"
    ]
    sentence, numbers = found_by("study-1d-2d", rows)
    assert sentence == "1D is at least as fast as 2D up to 256 chips for PaLM 540B."
    assert numbers["palm-540b.from_chips"] is None


def test_the_crossover_of_prefill_is_where_a_gathered_layout_is_first_the_fastest(points):
    # ws_2d is the faster up to batch 16; from 64 on wg_xyz is. Batch 1 has ws_2d alone, so nothing to compare.
    speed = {"ws_2d": 1.0, "wg_xyz": 0.5, "wg_x": 2.0, "wg_xy": 2.0}
    rows = [
        a_row_of(
            point,
            None if (point.ffn_layout, point.batch_size) == ("ws_2d", 512) else speed[point.ffn_layout],
            mfu=0.7 if (point.ffn_layout, point.batch_size) == ("wg_xyz", 512) else 0.4,
        )
        for point in points["study-prefill"]
    ]
    sentence, numbers = found_by("study-prefill", rows)
    assert numbers["fastest_from"] == {str(4 * 2048): "ws_2d", str(64 * 2048): "wg_xyz"}
    assert numbers["best_tokens"] == 512 * 2048
    assert numbers["ws_2d_refused_from"] == 512 * 2048
    assert sentence == "The highest MFU is 70.0%, with wg_xyz at 1,048,576 tokens."


def test_a_variant_of_attention_that_does_not_fit_ends_earlier(points):
    rows = []
    for point in points["study-attention"]:
        multihead = "multihead" in point.model.name
        context = point.input_len + point.output_len
        fits = not multihead or context <= 2048
        rows.append(a_row_of(point, 0.001 * (1 + context / 128) if fits else None))
    sentence, numbers = found_by("study-attention", rows)
    assert sentence == "The longest context that fits is 32,768 tokens (multiquery, by batch and multiquery, by heads)."
    assert numbers["multihead, by heads.longest"] == 2048
    assert numbers["multiquery, by batch.step_s"] == pytest.approx(0.257)
    # 1 + 2048/128 = 17 ms against 1 + 1 = 2 ms.
    assert numbers["multihead, by heads.beyond.2048"] == pytest.approx(15 / 17)


def test_what_a_serial_block_costs(points):
    times = {("palm-540b", 64): 0.050, ("palm-540b-serial", 64): 0.055, ("palm-540b", 512): 0.100}
    rows = [a_row_of(point, times.get((point.model.name, point.batch_size))) for point in points["study-block"]]
    sentence, numbers = found_by("study-block", rows)
    assert sentence == "The serial block takes 1.10× the time of the parallel one at batch 64."
    assert numbers == {"batch_64": pytest.approx(0.1)}
    assert found_by("study-block", rows[2:]) is None  # the serial one at batch 512 does not fit


def test_overlapped_beside_plain_and_a_twin_that_does_not_fit(points):
    seconds = {"plain": 1.2, "oneway": 1.1, "throughput": 1.0, "latency": 1.3}
    rows = []
    for point in points["study-collectives"]:
        gspmd, long = point.partitioner == "gspmd", point.batch_size == 512 and point.phase == "prefill"
        rows.append(a_row_of(point, (None if long else 1.4) if gspmd else seconds[point.collectives]))
    sentence, numbers = found_by("study-collectives", rows)
    assert numbers["decode, batch 64.GSPMD"] == pytest.approx(1.4)
    assert numbers["prefill, batch 4.plain"] == pytest.approx(1.2)
    assert numbers["prefill, batch 512.GSPMD"] == "oom"
    assert sentence == "GSPMD takes up to 1.40× the time of overlapped collectives (decode, batch 64)."


def test_int8_against_bfloat16(points):
    rows = [
        a_row_of(point, 0.030 if point.weight_dtype == "bfloat16" else 0.020) for point in points["study-weights"][:4]
    ]
    sentence, numbers = found_by("study-weights", rows)
    assert sentence == "bfloat16 weights take up to 1.50× the time of int8 (decode, batch 4)."
    assert numbers == {"decode.4": pytest.approx(1.5), "decode.16": pytest.approx(1.5)}


def test_generations_from_the_fastest_to_the_one_that_does_not_fit(points):
    seconds = {"tpu-v4": 0.030, "tpu-7x": 0.010}
    mine = [point for point in points["study-generations"] if point.model.name == "llama-3-70b"]
    sentence, numbers = findings.generations([a_row_of(point, seconds.get(point.chip.name)) for point in mine])
    assert sentence == "Llama 3 70B decodes fastest on 64 tpu-7x, at 10 ms a step."
    assert numbers == {"llama-3-70b.tpu-7x": 0.010, "llama-3-70b.tpu-v4": 0.030}


def test_every_finding_of_a_study_is_one_sentence_with_one_figure(points):
    rows = [
        a_row_of(point, 0.001 * (1 + number), point_id=f"{recipe}.{number}", engine=point.engine)
        for recipe, asked in points.items()
        for number, point in enumerate(asked)
    ]
    document = studies_report(rows, "title", NOWHERE)
    assert len(document.findings) == len(STUDIES)
    figure = re.compile(r"\d[\d,.]*(?:%|×| ms| chips| tokens)|\d+ of \d+")
    for each in document.findings:
        assert each.sentence.endswith("."), each
        assert not re.search(r"[.;] ", each.sentence), each
        assert len(each.sentence.split()) <= 30, each
        assert 1 <= len(figure.findall(each.sentence)) <= 2, each  # a figure, and where it holds


def test_our_step_is_compared_with_the_fastest_peer_s(points):
    asked = [
        point for point in points["study-peers"] if (point.model.name, point.chip.name) == ("llama-3-8b", "tpu-v4")
    ]
    assert {(point.engine, point.partitioner) for point in asked} == {
        ("compiled", "manual"), ("compiled", "gspmd"), ("jax-llm-examples", "manual"), ("maxtext", "manual"),
    }  # fmt: skip
    seconds = {"compiled": 0.003, "jax-llm-examples": 0.002, "maxtext": 0.004}
    rows = [
        a_row_of(
            point, seconds[point.engine] * (1 + (point.partitioner == "gspmd")), engine=point.engine, point_id=str(n)
        )
        for n, point in enumerate(asked)
    ]
    study = BY_RECIPE["study-peers"]
    stored = find_rows(rows, asked)
    assert len(stored.rows) == 4
    sentence, numbers = study.find(stored.rows)
    assert sentence == "A step of ours takes 1.5× the time of the fastest peer's."
    assert numbers["Llama 3 8B on tpu-v4, batch 16.ratio"] == pytest.approx(1.5)
    assert numbers["Llama 3 8B on tpu-v4, batch 16.maxtext.waits_for"] == "memory"
    bars = [study.shape.bar(row) for row in stored.rows]
    assert sorted(bars) == ["GSPMD", "jax-llm-examples", "maxtext", "shardbench"]

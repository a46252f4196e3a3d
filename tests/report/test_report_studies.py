"""``shardbench report studies``: which rows answer a recipe, what bounds them, and what each study says of them."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.report.render import style
from bench.report.studies import findings
from bench.report.studies.registry import STUDIES
from bench.report.studies.report import studies_report
from bench.report.studies.rows import answers, find_rows, parts_of, points_of
from bench.report.studies.traces import Places
from bench.rows.store import Store
from engines.core.row import POINT_FIELDS, Row

pytestmark = pytest.mark.slow

BY_RECIPE = {study.recipe: study for study in STUDIES}
NOWHERE = Places(Path("none/traces"), Path("reports/studies"))
CHOICES = {"mesh_shape": [4, 4, 4], "ffn_layout": "ws_2d", "attn_sharding": "batch", "collectives": "latency"}


@pytest.fixture(scope="module")
def points():
    return {study.recipe: points_of(study.recipe, study.variants) for study in STUDIES}


def a_row_of(point, seconds=None, **changes):
    """An engine's answer to a point: one second of memory, three of other computation, one exposed, in ten."""
    asked = {key: value for key, value in point.axes().items() if key in POINT_FIELDS}
    chosen = [key for key in CHOICES if asked[key] in (None, "auto")]
    steps = point.decode_steps or 1
    content = {
        **asked,
        **{key: CHOICES[key] for key in chosen},
        "chosen": chosen,
        "engine": "compiled",
        "source": "compiled",
        "status": "ok" if seconds else "oom",
        "error": None if seconds else "ran out of memory",
        "valid": bool(seconds),
        "point_id": point.fingerprint("compiled"),
        "created_at": "2026-01-02T03:04:05.006+00:00",
    }
    if seconds:
        whole = seconds * steps
        content |= {"latency_s": whole, "step_time_s": seconds if point.phase == "decode" else None, "mfu": 0.5}
        content |= {"compute_s": 0.8 * whole, "memory_s": 0.5 * whole, "communication_s": 0.6 * whole}
        content |= {"overlapped_s": 0.4 * whole, "overhead_s": 0.0, "details": {"exposed_s": 0.2 * whole}}
    return Row(**{**content, **changes})


def test_every_recipe_of_a_study_is_reported():
    from bench.sweep.catalog import names

    assert {name for name in names("sweep") if name.startswith("study-")} == set(BY_RECIPE)


def test_a_recipe_s_points_are_those_that_the_run_command_asks(points):
    blocks = points["study-block"]
    assert [(point.model.name, point.batch_size) for point in blocks] == [
        (model, batch) for batch in (64, 512) for model in ("palm-540b", "palm-540b-serial")
    ]
    models = {point.model.name for point in points["study-attention"]}
    assert models == {"palm-540b+num_layers=8", "palm-540b-multihead+num_layers=8"}
    assert len(points["study-attention"]) == 2 * 5 * 2


def test_a_choice_left_open_is_met_by_what_the_engine_chose_and_not_by_what_was_asked(points):
    point = points["study-block"][0]
    assert point.collectives == "auto"
    row = a_row_of(point, 0.1)
    assert answers(row, point)
    assert not answers(replace(row, chosen=["mesh_shape"]), point)
    assert not answers(replace(row, ffn_layout="ws_1d"), point)
    assert not answers(replace(row, weight_dtype="int8"), point)
    assert not answers(replace(row, partitioner="gspmd"), point)


def test_a_publication_meets_what_is_open_but_not_what_is_asked(points):
    told = {"source": "published", "engine": "published", "chosen": [], "collectives": "auto"}
    block, looped = points["study-block"][0], points["study-collectives"][0]
    assert answers(a_row_of(block, 0.1, **told), block)
    assert not answers(a_row_of(looped, 0.1, **told), looped)


def test_the_newest_row_of_each_kind_is_taken_and_other_kinds_only_beside_a_compiled_one(points):
    first, second, *rest = points["study-block"]
    old = a_row_of(first, 0.2, point_id="old")
    new = a_row_of(first, 0.1, point_id="new", created_at="2026-01-03T03:04:05.006+00:00")
    predicted = {"source": "predicted", "engine": "analytic"}
    beside = a_row_of(first, 0.3, point_id="beside", **predicted)
    alone = a_row_of(second, 0.4, point_id="alone", **predicted)
    found = find_rows([alone, beside, old, new], [first, second, *rest])
    assert [row.point_id for row in found.rows] == ["new", "beside"]
    assert [row.point_id for row in found.compiled] == ["new"]
    assert found.missing == 1 + len(rest)


def test_a_study_s_own_row_comes_before_a_newer_one_of_other_settings(points):
    (first, *_) = points["study-block"]
    own = a_row_of(first, 0.2, point_id="own", sweep="study-block")
    later = {"created_at": "2026-01-03T03:04:05.006+00:00", "sweep": "study-targets"}
    searched = a_row_of(first, 0.1, point_id="searched", details={"unrolled": True}, **later)
    looped = replace(own, sweep="study-weights")
    assert [row.point_id for row in find_rows([own, searched], [first], "study-block").rows] == ["own"]
    assert [row.point_id for row in find_rows([looped, searched], [first], "study-block").rows] == ["own"]
    assert [row.point_id for row in find_rows([own, searched], [first], "study-targets").rows] == ["searched"]


def test_the_parts_of_a_step_by_hand(points):
    # 64 steps of 10 ms: 8 ms of computation, 5 of them HBM traffic, and 2 ms of exposed communication.
    row = a_row_of(points["study-block"][0], 0.010)
    parts = parts_of(row)
    assert parts == pytest.approx((0.003, 0.005, 0.002))
    assert parts.bound_by == "memory"
    # A closed form's computation and traffic stand beside each other, and it states no exposed time.
    predicted = parts_of(replace(row, source="predicted", details={}))
    assert predicted == pytest.approx((0.008, 0.005, 0.002))
    assert predicted.bound_by == "compute"
    late = replace(row, details={"exposed_s": 0.0051 * 64})
    assert parts_of(late).bound_by == "exposed communication"
    assert parts_of(a_row_of(points["study-block"][0])) is None


def test_waiting_for_copies_is_memory(points):
    row = a_row_of(points["study-block"][0], 0.010, overhead_s=0.001 * 64)
    assert parts_of(row).memory_s == pytest.approx(0.006)


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


@pytest.fixture(scope="module")
def rows(points):
    """Rows of two studies: one whole, with other kinds beside it and a refusal, one in part.

    PaLM 540B in ws_2d on 64 chips is a point of the serial block's study too, and of the targets with
    collectives=latency.
    """
    found = []
    for number, point in enumerate(points["study-1d-2d"]):
        found.append(a_row_of(point, None if number == 0 else 1.0 / point.num_chips))
    first = points["study-collectives"]
    found += [a_row_of(point, 0.1) for point in first[:4]] + [a_row_of(first[-1])]
    found.append(a_row_of(points["study-1d-2d"][1], 0.2, source="predicted", engine="analytic", point_id="beside"))
    return found


def test_the_report_on_disk(rows, tmp_path, capsys):
    Store(tmp_path / "store").append(rows)
    words = ["report", "studies", f"results_dir={tmp_path / 'store'}", f"out={tmp_path / 'out'}", "figures=png"]
    assert main([*words, "print=json"]) == 0
    told = json.loads(capsys.readouterr().out)
    out = tmp_path / "out" / "studies"
    figures = {path.stem for path in (out / "figures").iterdir()}
    assert figures == {"study_targets", "study_1d_2d", "study_collectives", "study_block"}
    assert all((out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in figures)
    assert len(told["findings"]) == len(STUDIES)
    text = (out / "studies.md").read_text(encoding="utf-8")
    assert "No rows are stored; make them with `shardbench run +sweep=study-prefill`." in text
    assert "1 row does not fit in memory" in text
    assert f"resume=false results_dir={tmp_path / 'store'}" in text  # no trace of its row is there
    assert "oom: ran out of memory" in text
    with (out / "tables" / "study_1d_2d.csv").open(encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert [each["source"] for each in cells[:3]] == ["compiled", "compiled", "predicted"]
    assert (cells[0]["status"], cells[0]["time_s"], cells[0]["bound_by"]) == ("oom", "", "")
    assert float(cells[1]["time_s"]) == pytest.approx(1 / 8)
    assert (cells[1]["bound_by"], cells[2]["bound_by"]) == ("memory", "compute")


def test_a_long_study_shows_a_small_table_of_the_same_times(points):
    rows = [a_row_of(point, 0.001 * number or None) for number, point in enumerate(points["study-1d-2d"])]
    section = next(
        each for each in studies_report(rows, "title", NOWHERE).sections if each.title == BY_RECIPE["study-1d-2d"].title
    )
    (small,), (whole,) = section.tables, section.linked
    assert len(whole.rows) == len(rows)
    assert len(small.rows) < len(rows) / 2
    stored = [value for line in small.rows for key, value in line.items() if key != "index" and value is not None]
    assert sorted(stored) == sorted(row.step_time_s for row in rows if row.step_time_s)
    shown = [text for line in small.printed for key, text in line.items() if key != "index"]
    assert sorted(shown) == sorted("oom" if row.status == "oom" else f"{1e3 * row.step_time_s:.3g}" for row in rows)


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


def test_kinds_of_evidence_are_drawn_apart_and_a_refusal_as_a_cross(rows):
    document = studies_report(rows, "title", NOWHERE)
    section = next(each for each in document.sections if each.title == BY_RECIPE["study-1d-2d"].title)
    with style.settings():
        (drawn,) = section.draw()
    assert "Kinds of evidence: compiled, predicted." in drawn.caption
    lines = [line for line in drawn.figure.axes[0].lines if len(line.get_xdata())]
    assert {(line.get_marker(), line.get_linestyle()) for line in lines} == {("^", ":"), ("o", "--"), ("x", "None")}
    cross = next(line for line in lines if line.get_marker() == "x")
    assert list(cross.get_xdata()) == [8]


def test_a_bar_s_parts_add_up_and_what_does_not_fit_says_so(rows):
    document = studies_report(rows, "title", NOWHERE)
    section = next(each for each in document.sections if each.title == BY_RECIPE["study-collectives"].title)
    with style.settings():
        (drawn,) = section.draw()
    by_title = {axis.get_title(loc="left"): axis for axis in drawn.figure.axes}
    decode, prefill = by_title["decode, batch 64"], by_title["prefill, batch 512"]
    assert [patch.get_height() for patch in decode.patches[:3]] == pytest.approx([50, 30, 20])
    assert not prefill.patches
    assert [text.get_text() for text in prefill.texts] == ["does not fit"]


def test_a_store_without_rows_of_a_study_says_what_to_run(tmp_path, capsys, points):
    foreign = a_row_of(points["study-block"][0], 0.1, source="predicted", engine="analytic")
    Store(tmp_path).append([foreign])
    assert main(["report", "studies", f"results_dir={tmp_path}", f"out={tmp_path / 'out'}"]) == 2
    assert "run shardbench run +sweep=study-targets first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["report", "studies", f"results_dir={tmp_path / 'empty'}", f"out={tmp_path / 'out'}"]) == 2


def test_the_rows_that_set_the_constants_are_named_once(points):
    constants = {"link_efficiency": 0.75, "hop_s": 2e-6, "set_by": ["a prefill", "a step"]}
    mine = points["study-block"][:2]
    rows = [a_row_of(point, 1.0, details={"exposed_s": 0.0, "constants": constants}) for point in mine]
    (how, *_) = studies_report(rows, "title", NOWHERE).sections
    assert how.text.count("The link model reaches 75% of a torus link's bandwidth and takes 2 µs a hop") == 1
    assert "fitted to a prefill; a step: agreement with these rows does not check" in how.text
    (how, *_) = studies_report([a_row_of(mine[0], 1.0)], "title", NOWHERE).sections
    assert "link model" not in how.text

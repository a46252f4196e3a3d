"""``shardbench report studies``: which rows answer a recipe, what bounds them, and what each study says of them."""

import csv
import json
from dataclasses import replace

import pytest
from study_rows import BY_RECIPE, NOWHERE, a_row_of

from bench.cli.main import main
from bench.report.render import style
from bench.report.studies.registry import STUDIES
from bench.report.studies.report import studies_report
from bench.report.studies.rows import answers, find_rows, parts_of
from bench.rows.pairing import DEFAULTS
from bench.rows.store import Store

pytestmark = pytest.mark.slow


def test_every_recipe_of_a_study_is_reported():
    from bench.sweep.catalog import names

    assert {name for name in names("sweep") if name.startswith("study-")} == set(BY_RECIPE) | {"study-offload"}
    # The last is of predicted rows, which `report offload` reads.


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


def test_a_row_of_before_a_key_was_one_was_asked_with_its_default(points):
    point = points["study-block"][0]
    row = a_row_of(point, 0.1)
    added = {key: None for key, default in DEFAULTS.items() if default in ("none", "equal", "padded")}
    assert {"offload", "lengths", "padding", "sequence_parallel"} <= set(added)
    assert answers(replace(row, **added), point)
    assert find_rows([replace(row, source="compiled", **added)], [point]).missing == 0
    assert not answers(replace(row, **added | {"lengths": "trace"}), point)
    assert not answers(replace(row, **added | {"offload": "host"}), point)


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


def test_of_several_settings_the_fastest_is_shown_whichever_is_the_newest(points):
    """A search that tried more, and a plain row asked before or after it; of one settings the newest still counts."""
    (first, *_) = points["study-block"]
    times = {"tried_s": {"ws_2d latency": 0.1, "ws_2d latency unrolled": 0.1}}
    searched = a_row_of(first, 0.1, point_id="searched", sweep="study-block", details=times)
    plain = a_row_of(first, 0.2, point_id="plain", sweep="study-block")
    refused = a_row_of(first, point_id="refused", sweep="study-block", details={"keep_hlo": True})
    again = replace(searched, point_id="again", latency_s=30.0, step_time_s=0.3)
    early, late = ({"created_at": f"2026-01-0{day}T03:04:05.006+00:00"} for day in (2, 3))

    def shown(*rows):
        return [row.point_id for row in find_rows(rows, [first], "study-block").rows]

    assert shown(replace(searched, **early), replace(plain, **late), refused) == ["searched"]
    assert shown(replace(searched, **late), replace(plain, **early), refused) == ["searched"]
    assert shown(replace(searched, **early), replace(again, **late)) == ["again"]
    assert shown(replace(searched, **early), replace(again, **late), plain) == ["plain"]
    assert shown(refused) == ["refused"]


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

"""Validation: the figures by hand, the published targets, and bad files refused with their line."""

import json
from dataclasses import replace

import pytest
from builders.published_files import published_files

from bench.cli.main import main as shardbench
from bench.rows.store import Store
from bench.run.make_row import PointTask, estimated
from bench.sweep.catalog import load_chip, load_customised, model_from
from bench.validate.csv_cases import read_cases as read_table
from bench.validate.data import read_all
from bench.validate.errors import Compared, compare, figures, figures_of, load_estimator
from bench.validate.runtimes import asked
from engines.core.engine import Estimate, Facts
from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.published.table import columns

ENGINE = load_estimator("analytic")
HEADER = ",".join(columns())
GOOD = "source,mine,palm-540b,tpu-v4,64,,,decode,64,1984,64,int8,ws_2d,batch,1.82,0.14,ok"


def read_cases(path, engine):
    """The cases of a table in which every line is one."""
    reading = read_table(path, engine)
    assert not reading.unused
    return reading.cases


@pytest.fixture
def write(tmp_path):
    def write_file(*lines, header=HEADER):
        path = tmp_path / "times.csv"
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return path

    return write_file


def test_figures_by_hand():
    found = figures_of([0.1, -0.2, 0.3, 0.0])
    assert found["mape"] == pytest.approx(0.15)
    assert found["median_ape"] == pytest.approx(0.15)
    assert found["p90_ape"] == pytest.approx(0.27)
    assert found["worst_ape"] == pytest.approx(0.3)
    assert found["bias"] == pytest.approx(0.05)
    assert figures_of([])["mape"] is None


def test_out_of_memory_is_counted_four_ways(write):
    oom = GOOD.replace("1.82,0.14,ok", ",,oom")
    cases = read_cases(write(GOOD, oom), "analytic")
    ran, died = cases
    answers = [
        Compared(died, Estimate(status="oom")),
        Compared(died, Estimate(latency_s=1.0)),
        Compared(ran, Estimate(status="oom")),
        Compared(ran, Estimate(latency_s=2.0)),
        Compared(ran, Estimate(status="unsupported", error="no")),
    ]
    found = figures(answers)
    assert (found["oom_hit"], found["oom_missed"], found["oom_false"], found["unanswered"]) == (1, 1, 1, 1)
    assert (found["rows"], found["compared"]) == (5, 1)
    assert found["mape"] == pytest.approx(2.0 / 1.82 - 1)


def compared(*names):
    cases = read_all([path for path in published_files() if path.name in names], "analytic").cases
    return compare(asked(cases, ENGINE), ENGINE)


def test_no_published_row_that_ran_is_out_of_memory_and_none_that_did_not_fits():
    found = figures(compared(*(path.name for path in published_files())))
    assert (found["oom_hit"], found["oom_missed"], found["oom_false"]) == (10, 0, 0)
    assert found["unanswered"] == 0
    assert found["mape"] <= 0.08


def test_fastertransformers_rows_within_eight_percent():
    found = figures(compared("fastertransformer_mt-nlg-530b.csv", "fastertransformer_gpt-20b.csv"))
    assert found["rows"] == 261
    assert found["mape"] <= 0.035
    assert found["p90_ape"] <= 0.10
    assert (found["oom_hit"], found["oom_missed"], found["oom_false"]) == (9, 0, 0)


def test_the_papers_rows_within_ten_percent():
    found = figures(compared("paper_table2.csv", "paper_table_d3.csv"))
    assert found["rows"] == found["compared"] == 42
    assert found["mape"] <= 0.10


def test_the_published_engine_agrees_with_itself():
    published = load_estimator("published")
    found = figures(compare(read_all(published_files()[:1], "published").cases, published))
    assert found["mape"] == 0


def test_json_is_one_object_with_the_promised_keys(write, capsys):
    assert shardbench(["validate", f"data={write(GOOD)}", "engine=analytic", "print=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    promised = {
        *("mape", "median_ape", "p90_ape", "worst_ape", "bias"),
        *("rows", "oom_hit", "oom_missed", "oom_false", "groups"),
    }
    assert promised <= found.keys()
    assert found["rows"] == 1
    assert found["groups"]["system"]["mine"]["rows"] == 1
    assert {"system", "model", "phase", "parallelism", "runtime", "chip"} <= set(found["groups"])
    assert found["errors"][0]["line"] == 2
    assert found["leave_one_source_out"]["tpu-v4"]["paper_table2"]["mape"] > 0


def test_the_table_shows_each_row_and_the_held_out_error(write, capsys):
    assert shardbench(["validate", f"data={write(GOOD)}"]) == 0
    out = capsys.readouterr().out
    assert "times.csv:2" in out
    assert "1.82 s" in out
    assert "held out" in out


def test_several_files_are_one_validation(write, capsys):
    path = write(GOOD)
    assert shardbench(["validate", f"data=[{path},{path}]", "print=json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2


def test_an_empty_layout_is_the_engines_own_choice(write):
    open_row = GOOD.replace("ws_2d,batch", ",")
    asked, left = read_cases(write(GOOD, open_row), "analytic")
    assert (left.point.ffn_layout, left.point.attn_sharding) == ("auto", "auto")
    assert left.point.collectives == "auto"
    first, second = compare([asked, left], ENGINE)
    assert first.estimate.latency_s == pytest.approx(second.estimate.latency_s)


@pytest.mark.parametrize(
    ("system", "convention"),
    [
        ("fastertransformer", "prefill"),
        ("FasterTransformer 5.3", "prefill"),
        ("megatron", "prefill"),
        ("tensorrt-llm 0.6.1", "prefill"),
        ("vllm 0.11", "prefill"),
        ("paper", "decode"),
        ("mine", "decode"),
    ],
)
def test_the_runtime_says_whence_the_first_token_comes_where_the_file_does_not(write, system, convention):
    line = f"source,{system},gpt-20b,a100-80gb,8,8,1,generate,1,20,8,float16,,,0.2,,ok"
    header = ",".join([*columns(), "first_token"])
    for path in (write(line), write(f"{line},", header=header)):
        assert [case.point.first_token for case in read_cases(path, "analytic")] == [convention]
    for stated in ("decode", "prefill"):
        [case] = read_cases(write(f"{line},{stated}", header=header), "analytic")
        assert case.point.first_token == stated
    [case] = read_cases(write(line.replace("generate", "decode")), "analytic")
    assert case.point.decode_steps == 8


def test_numbers_as_a_spreadsheet_writes_them(write):
    row = GOOD.replace(",64,,,decode,64,1984,64,", ",64.0,,,decode,64.0,1984.0,64.0,")
    assert read_cases(write(row), "analytic")[0].point.batch_size == 64


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (GOOD.replace("1.82", "-1.82"), "latency_s=-1.82: must be a number > 0"),
        (GOOD.replace("1.82", "0"), "must be a number > 0"),
        (GOOD.replace("1.82", "1820000"), "another unit"),
        (GOOD.replace("1.82", "soon"), "must be a number"),
        (GOOD.replace("1.82", "nan"), "must be a number"),
        (GOOD.replace("1.82", ""), "is empty although status=ok"),
        (GOOD.replace("0.14", "14"), "must be a fraction"),
        (GOOD.replace("palm-540b", "palm-541b"), "palm-541b: is not known"),
        (GOOD.replace("tpu-v4", "tpu-v40"), "tpu-v40: is not known"),
        (GOOD.replace("decode", "decoding"), "decoding: is not known"),
        (GOOD.replace(",64,,,", ",63,,,"), "not a slice"),
        (GOOD.replace(",64,,,", ",6.5,,,"), "must be an integer"),
        (GOOD.replace(",64,,,", ",,,,"), "num_chips=: is empty"),
        (GOOD.replace(",ok", ",fine"), "status=fine"),
        (GOOD.replace(",ok", ",oom"), "must be empty if status=oom"),
        (GOOD.replace("1.82", "0.1"), "not plausible: mfu=2.5"),
        (GOOD + ",more", "18 cells"),
        (GOOD.rsplit(",", 2)[0], "15 cells"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_the_others_count(write, row, words):
    reading = read_table(write(GOOD, row, GOOD), "analytic")
    assert [case.line for case in reading.cases] == [2, 4]
    [unused] = reading.unused
    assert unused.place == "times.csv:3"
    assert words in unused.reason


@pytest.mark.parametrize("column", columns())
def test_a_missing_column_is_named(write, column):
    header = ",".join(name for name in columns() if name != column)
    [unused] = read_table(write(GOOD, header=header), "analytic").unused
    assert unused.line is None
    assert unused.reason.startswith(f"column {column}")
    assert "is missing" in unused.reason


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{HEADER}\n", "no rows"),
        (b"\xc3\x28\x81", "UTF-8"),
        ("", "is empty"),
        (f'{HEADER}\n{GOOD}\n"{GOOD}\n', "line 3 is not valid CSV"),
        (f"{HEADER},model\n{GOOD},palm-8b\n", "column model stands twice"),
        ((published_files()[0].parent / "paper_table1.csv").read_text(encoding="utf-8"), "memory limits"),
    ],
)
def test_files_that_are_no_tables_of_times(tmp_path, content, words):
    path = tmp_path / "times.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    reading = read_table(path, "analytic")
    assert not reading.cases
    assert [unused.line for unused in reading.unused] == [None]
    assert words in reading.unused[0].reason


def test_asked_wrongly_is_one_line_and_exit_code_two(write, capsys):
    assert shardbench(["validate", f"data={write(GOOD.replace('1.82', '-1'))}"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "times.csv:2:" in said.err
    assert shardbench(["validate", "engine=nothing"]) == 2


def test_an_engine_that_measures_cannot_be_validated():
    with pytest.raises(InvalidRequest, match="measures"):
        load_estimator("jax")


def measured(model="llama-3-8b", *, factor=1.25, **changes):
    """A row as the jax engine would have measured it, were it ``factor`` times as slow as predicted."""
    asked = {
        "model": model_from(load_customised("model", model)),
        "chip": load_chip("h100-80gb"),
        "phase": "decode",
        "num_chips": 1,
        "batch_size": 8,
        "input_len": 1984,
        "output_len": 64,
        "weight_dtype": "int8",
    } | changes
    point = Point(engine="jax", **asked)
    [answer] = ENGINE.estimate([point])
    question = PointTask(point=point, point_id=point.fingerprint("jax"), source="measured", sweep=None)
    return replace(estimated(question, replace(answer, latency_s=factor * answer.latency_s, facts=Facts())), valid=True)


def test_measured_rows_of_a_store_are_cases(tmp_path):
    rows = [measured(batch_size=each, phase=phase) for each in (1, 8) for phase in ("decode", "prefill")]
    rows.append(measured("llama-3-8b+num_layers=4+source=a=b"))
    wrong = replace(measured(batch_size=2, factor=9), valid=False, invalid_reason="it was noisy")
    died = replace(
        measured(batch_size=4), status="oom", valid=False, latency_s=None, mesh_shape=[1, 1, 1], tensor_parallel=1
    )
    predicted = replace(measured(batch_size=16, factor=9), source="predicted")
    Store(tmp_path).append([*rows, wrong, died, predicted])
    reading = read_all([tmp_path], "analytic")
    cases = reading.cases
    assert [unused.reason.partition(": ")[2] for unused in reading.unused if unused.line] == ["not valid: it was noisy"]
    assert [unused.reason for unused in reading.unused if not unused.line] == [
        f"1 of {len(rows) + 3} rows are predicted or compiled, not measured"
    ]
    assert [(case.system, case.oom) for case in cases].count(("jax", False)) == len(rows)
    assert [case.point.batch_size for case in cases if case.oom] == [4]
    assert [case.point.model.num_layers for case in cases if case.point.model.name != "llama-3-8b"] == [4]
    found = figures(compare(cases, ENGINE))
    assert (found["compared"], found["oom_missed"]) == (len(rows), 1)
    assert [found["mape"], found["worst_ape"]] == pytest.approx([1 - 1 / 1.25] * 2)


def test_a_folder_without_measured_rows_is_refused(tmp_path, capsys):
    Store(tmp_path / "noisy").append([replace(measured(), valid=False, invalid_reason="it was noisy")])
    assert shardbench(["validate", f"data={tmp_path / 'noisy'}"]) == 2
    assert "holds no usable row: noisy:1: row" in (said := capsys.readouterr().err)
    assert "not valid: it was noisy" in said
    assert shardbench(["validate", f"data={tmp_path / 'none'}"]) == 2
    Store(tmp_path / "odd").append([replace(measured(), model="llama-3-8b+layers=4")])
    [unused] = read_all([tmp_path / "odd"], "analytic").unused
    assert unused.reason.endswith("model=llama-3-8b+layers=4: llama-3-8b has no key layers; use a row with known keys")

"""A user's rows give the constants that made them, say what they make better, and refuse what cannot be fitted."""

import csv
import json
from dataclasses import replace

import pytest
from builders.points import point

from bench.calibrate.own import own_fit
from bench.calibrate.rows import LEAST_ROWS, own_rows
from bench.cli.main import main
from bench.sweep.runtimes import load_runtime
from bench.validate.case import Case
from engines.analytic.engine import AnalyticEngine
from engines.core.errors import InvalidRequest
from engines.published.table import columns

GRID = [(batch, length, phase) for batch in (1, 8, 64) for length in (128, 2048) for phase in ("prefill", "decode")]


def asked(runtime, hw="h100-80gb", model="llama-3-8b", grid=GRID):
    return [
        point(
            *(model, hw, runtime),
            engine="analytic",
            num_chips=1,
            phase=phase,
            batch_size=batch,
            input_len=length,
            output_len=32,
            weight_dtype="bfloat16",
        )
        for batch, length, phase in grid
    ]


def rows(runtime="vllm", **changes):
    """Cases whose times are those that the closed forms say of a runtime."""
    points = asked(runtime, **changes)
    return [
        Case(
            file="mine.csv",
            line=number,
            system="vLLM 0.9",
            reference="my machine",
            point=replace(each, runtime=None),
            latency_s=answer.latency_s,
            oom=False,
            runtime=runtime.partition("+")[0],
        )
        for number, (each, answer) in enumerate(zip(points, AnalyticEngine().estimate(points), strict=True), start=2)
    ]


def table(path, cases):
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, columns())
        writer.writeheader()
        for case in cases:
            keys = case.point.axes()
            writer.writerow(
                {name: "" if keys.get(name) in (None, "auto") else keys[name] for name in columns() if name in keys}
                | {
                    "source": case.reference,
                    "system": case.system,
                    "latency_s": case.latency_s,
                    "mfu": "",
                    "status": "ok",
                }
            )
    return path


def test_constants_that_made_the_rows_are_found_and_predict_rows_that_were_held_out():
    # This host takes 1.6 times as long to start the operations of a layer.
    true = 1.6 * load_runtime("torch-eager").values("h100-80gb")["host_layer_s"]
    grid = [(batch, length, "decode") for batch in (1, 2, 8, 32, 64) for length in (128, 1024, 2048)]
    found = own_fit(own_rows(rows(f"torch-eager+host_layer_s={true!r}", grid=grid), None, None))
    fitted = found.fit.constants("h100-80gb", "torch-eager")
    assert fitted["host_layer_s"] == pytest.approx(true, rel=0.1)
    assert found.helps
    assert found.held_out.mean < 0.6 * found.before.mean
    assert found.after.mean < 0.02
    assert found.rows.by == "batch"


def test_rows_that_agree_with_the_constants_leave_them_as_they_are():
    found = own_fit(own_rows(rows(), None, None))
    fitted = found.fit.constants("h100-80gb", "vllm")
    assert found.before.worst < 1e-9
    for name, value in found.start.items():
        assert fitted[name] == pytest.approx(value, rel=1e-6), name


def test_what_is_written_is_a_runtime_that_predicts_the_rows(tmp_path, monkeypatch, capsys):
    cases = rows("vllm+layer_s=0.0001")
    data, out = table(tmp_path / "mine.csv", cases), tmp_path / "conf" / "runtime" / "mine.yaml"
    assert main(["calibrate", f"data={data}", f"out={out}", "print=json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["errors"]["rows"] == len(cases)
    assert told["errors"]["helps"] is True
    monkeypatch.setenv("SHARDBENCH_CONFIG_DIR", str(tmp_path / "conf"))
    runtime = load_runtime("mine")
    answers = AnalyticEngine().estimate([replace(case.point, runtime=runtime) for case in cases])
    errors = [answer.latency_s / case.latency_s - 1 for answer, case in zip(answers, cases, strict=True)]
    assert max(map(abs, errors)) == pytest.approx(told["errors"]["in_fit"]["worst_ape"], abs=2e-3)
    assert runtime.limits == load_runtime("vllm").limits
    assert runtime.constants["layer_s"].set_by


def test_rows_that_contradict_each_other_are_shown_and_left_out(tmp_path, capsys):
    cases = rows()
    twice = [*cases, replace(cases[0], line=99, latency_s=2 * cases[0].latency_s)]
    kept = own_rows(twice, None, None)
    assert [case.line for case in kept.contradicting[0].cases] == [2, 99]
    assert len(kept.cases) == len(cases) - 1
    main(["calibrate", f"data={table(tmp_path / 'mine.csv', twice)}"])
    assert "rows of one point are 100% apart: mine.csv:2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cases", "keys", "said"),
    [
        (rows()[: LEAST_ROWS - 1], {}, "too few to fit"),
        ([*rows(), *rows(hw="h200")], {}, "hw=h100-80gb, h200: are several"),
        (rows(), {"hw": "h200"}, "hw=h200: is of none of the rows"),
        ([replace(case, runtime="auto") for case in rows()], {}, "runtime=auto: names no runtime"),
        ([*rows(), *(replace(case, runtime="lmdeploy") for case in rows())], {}, "runtime=vllm, lmdeploy: are several"),
        (rows(), {"runtime": "nosuch"}, "runtime=nosuch: is not known"),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence(cases, keys, said):
    with pytest.raises(InvalidRequest, match=said):
        own_rows(cases, keys.get("hw"), keys.get("runtime"))


def test_one_of_several_chips_can_be_chosen():
    found = own_rows([*rows(), *rows(hw="h200")], "h200", None)
    assert found.chip.name == "h200"
    assert len(found.cases) == len(GRID)


def test_a_file_is_never_given_the_name_of_ours(tmp_path, capsys):
    data = table(tmp_path / "mine.csv", rows())
    assert main(["calibrate", f"data={data}", f"out={tmp_path / 'vllm.yaml'}"]) == 2
    assert "has the name of our own runtime vllm" in capsys.readouterr().err
    assert not (tmp_path / "vllm.yaml").exists()

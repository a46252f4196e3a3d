"""Who is asked for which runtime: a recipe asks predictors, the command line asks every engine."""

import json

import pytest

from bench.cli.main import main
from bench.sweep.catalog import load_group
from bench.sweep.composer import Composer
from bench.sweep.overrides import in_grammar
from bench.sweep.requests import requests_of

DECODE = ["num_chips=64", "phase=decode", "batch_size=64", "input_len=1984", "output_len=64"]


def asked(*words):
    with Composer().ready() as composer:
        [request] = requests_of(composer, in_grammar(words, multirun=False))
    return {
        (job.engine, None if point.runtime is None else point.runtime.name)
        for job in request.jobs
        for point in job.points
    }


def test_a_recipe_asks_predictors_for_its_runtime_and_leaves_other_engines_themselves():
    engines = "engine=[published,analytic,compiled]"
    assert asked("+sweep=paper-table2", engines) == {
        ("published", "xla-2022"),
        ("analytic", "xla-2022"),
        ("compiled", None),
    }


def test_the_command_line_overrides_a_recipe_and_asks_every_engine():
    assert asked("+sweep=paper-table2", "engine=[analytic,compiled]", "runtime=best") == {
        ("analytic", "best"),
        ("compiled", "best"),
    }
    assert asked("runtime=auto", *DECODE) == {("analytic", None)}
    assert asked("runtime=best", "runtime.constants.layer_s.value=1e-6", *DECODE) == {
        ("analytic", "best+layer_s=1e-06")
    }


def test_published_rows_carry_their_runtime():
    engines = [runtime for _, runtime in asked("+sweep=published")]
    assert {"xla-2022", "fastertransformer", "tensorrt-llm", "gpt-fast"} <= set(engines)
    assert None not in engines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runtime=vllm"], "runtime=vllm: does not run on hw=tpu-v4"),
        (["runtime=nosuch"], "runtime=nosuch: is not known"),
        (["runtime=auto", "+runtime.constants.layer_s=1"], "runtime.constants"),
    ],
)
def test_a_runtime_that_cannot_be_is_one_sentence(tmp_path, capsys, words, said):
    code = main(["run", *DECODE, *words, f"results_dir={tmp_path}"])
    error = capsys.readouterr().err
    assert code != 0
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_refused_point_among_others_is_a_row_that_says_why(tmp_path, capsys):
    words = ["hw=a100-80gb", "model=[llama-3-70b,gpt-20b]", "num_chips=8", "weight_dtype=float16", "print=json"]
    main(["run", *words, "runtime=fastertransformer", "input_len=64", "output_len=8", f"results_dir={tmp_path}"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(row["model"], row["status"], row["runtime"]) for row in rows} == {
        ("llama-3-70b", "unsupported", "fastertransformer"),
        ("gpt-20b", "ok", "fastertransformer"),
    }
    [refused] = [row["error"] for row in rows if row["status"] == "unsupported"]
    assert "no grouped-query attention" in refused


def test_auto_has_no_settings():
    assert load_group("runtime", "auto") == {"name": "auto"}

"""The command: which files it takes, what it asks for and refuses, and what it stores."""

import json
from importlib import import_module
from pkgutil import iter_modules

import pytest
from builders.results_of_others import (
    GIVEN,
    INFERENCEX,
    LATENCY,
    OPTIMUM,
    SERVE,
    SERVED,
)

from bench import importers
from bench.cli.args import parse
from bench.cli.commands import import_
from bench.importers.formats import FORMATS
from bench.rows.store import Store
from bench.validate.stored_cases import read_stored_cases
from engines.core.errors import InvalidRequest, ShardbenchError


def stored(tmp_path):
    return Store(tmp_path / "results").parts() if (tmp_path / "results").exists() else []


def test_every_importer_is_a_format():
    modules = [import_module(f"bench.importers.{each.name}") for each in iter_modules(importers.__path__)]
    readers = {module.__name__ for module in modules if hasattr(module, "matches")}
    assert readers == {each.matches.__module__ for each in FORMATS.values()}


def test_what_a_file_does_not_hold_is_asked_for_by_name(run, tmp_path):
    with pytest.raises(InvalidRequest) as caught:
        run(LATENCY, "model=llama-3-8b hw=h100-80gb num_chips=1 weight_dtype=bfloat16")
    assert caught.value.key == "batch_size"
    assert "input_len, output_len" in str(caught.value)
    with pytest.raises(InvalidRequest, match=r"model=: .*file\.json does not state it"):
        run(LATENCY, GIVEN.replace("model=llama-3-8b", ""))
    assert stored(tmp_path) == []


def test_the_same_file_twice_adds_nothing(run, capsys):
    assert len(run(LATENCY, GIVEN)) == 1
    assert "1 row added" in capsys.readouterr().out
    assert len(run(LATENCY, GIVEN)) == 1
    assert "no rows added" in capsys.readouterr().out
    # Another file, or the same said to be of another point, is another row.
    assert len(run({**LATENCY, "std_latency": 0.1582}, GIVEN)) == 2
    assert len(run(LATENCY, GIVEN.replace("batch_size=8", "batch_size=4"))) == 3


def test_a_list_of_entries_is_as_many_rows(run):
    twice = [INFERENCEX, INFERENCEX, {**INFERENCEX, "conc": 64}]
    rows = run(twice)
    assert len({row.point_id for row in rows}) == len(rows) == 3


def test_one_bad_entry_stores_none(run, tmp_path):
    with pytest.raises(ShardbenchError):
        run([INFERENCEX, {**INFERENCEX, "conc": 2.5}])
    assert stored(tmp_path) == []


def test_what_the_user_says_may_not_contradict_the_file(run, tmp_path):
    with pytest.raises(
        InvalidRequest, match=r"batch_size=4: differs from .*, which has 2 \(file: .*batch_size\); omit batch_size$"
    ):
        run(OPTIMUM, "batch_size=4")
    assert stored(tmp_path) == []


def test_a_point_that_cannot_be_is_refused(run):
    with pytest.raises(InvalidRequest, match="num_chips=3"):
        run(LATENCY, GIVEN.replace("num_chips=1", "num_chips=3"))
    with pytest.raises(InvalidRequest, match="weight_dtype=fp16"):
        run(LATENCY, GIVEN.replace("weight_dtype=bfloat16", "weight_dtype=fp16"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", r"is not JSON \(.*line 1\)"),
        ("", "is not JSON"),
        ("[1, 2]", "must hold a mapping or a list"),
        ("[]", "must hold a mapping or a list"),
        ('"text"', "must hold a mapping or a list"),
        ("{}", "has an unknown format"),
        ('{"avg_latency": 1}', "has an unknown format"),
    ],
)
def test_a_file_that_is_none_is_named(run, tmp_path, content, problem):
    with pytest.raises(ShardbenchError, match=problem) as caught:
        run(content, GIVEN)
    assert "file.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert stored(tmp_path) == []


def test_a_file_of_another_format_than_asked_is_refused(run):
    with pytest.raises(InvalidRequest, match=r"format=maxtext: .*is vllm-latency"):
        run(LATENCY, f"{GIVEN} format=maxtext")


def test_a_file_that_is_not_there_or_not_text(run, tmp_path):
    _, settings = parse("import", [f"data={tmp_path / 'none.json'}"], import_.KEYS, import_.VERBS)
    with pytest.raises(InvalidRequest, match="No such file"):
        import_.main(None, settings)
    binary = tmp_path / "file.bin"
    binary.write_bytes(b"\x80\x81 no text")
    _, settings = parse("import", [f"data={binary}"], import_.KEYS, import_.VERBS)
    with pytest.raises(ShardbenchError, match="not UTF-8 text"):
        import_.main(None, settings)


def test_rows_as_json_alone_on_stdout(run, capsys):
    run(OPTIMUM, "print=json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["phase"] for line in lines] == ["prefill", "decode"]


def test_several_files_in_one_command(run, tmp_path):
    for name, batch in (("a", 32), ("b", 64)):
        (tmp_path / f"{name}.json").write_text(json.dumps({**INFERENCEX, "conc": batch}), encoding="utf-8")
    words = [f"data=[{tmp_path}/a.json,{tmp_path}/b.json]", f"results_dir={tmp_path / 'results'}"]
    _, settings = parse("import", words, import_.KEYS, import_.VERBS)
    import_.main(None, settings)
    assert {row.batch_size for row in Store(tmp_path / "results").load()} == {32, 64}


@pytest.mark.parametrize("value", ["[]", "[4,8]"])
def test_a_key_takes_one_value_not_a_grid(run, tmp_path, value):
    with pytest.raises(InvalidRequest, match=r"kv_dtype=.*is not known"):
        run(LATENCY, f"{GIVEN} kv_dtype={value}")
    assert stored(tmp_path) == []


def test_any_key_of_a_point_may_be_given(run):
    [row] = run(LATENCY, f"{GIVEN} mesh_shape=[1,1,1] collectives=plain")
    assert (row.mesh_shape, row.collectives, row.first_token) == ([1, 1, 1], "plain", "prefill")


def test_imported_rows_are_validated_by_the_defaults_of_what_they_leave_open(run, tmp_path):
    run(OPTIMUM)
    run(SERVE, SERVED)
    found = read_stored_cases(tmp_path / "results", "analytic")
    assert [(case.point.phase, case.point.kv_dtype, case.latency_s) for case in found.cases] == [
        ("prefill", "float16", 0.05),
        ("decode", "float16", 0.64),
    ]
    [unused] = found.unused
    assert "is a server under load" in unused.reason

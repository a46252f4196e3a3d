"""Exit codes: a refusal is 2 and one sentence, whatever is typed; what nobody foresaw is 4 and asks to be reported."""

import importlib
import json
import os

import pytest
from builders.rows import a_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.cli.args import Key
from bench.cli.commands import env
from bench.cli.main import COMMANDS, MODULES, main
from bench.cli.values import Boolean, Choice, Integer, ListOf, Number, listed
from bench.rows.store import Store
from bench.sweep.catalog import names
from engines.core.errors import ShardbenchError

pytestmark = pytest.mark.slow

ODD = [
    *("0", "1", "-1", "1.5", "9" * 30, "9" * 5000, "1e999", "null", "true", "[]", "[1,2]", "[a,b]", "[", "[a", "[/b]"),
    *("a\0b", "a\nb", "\x1b[2J", "é", "\udcff", "\ud800", "~nobody/x", "a/b/c", "/dev/null", "/dev/null/x", "x" * 300),
    *("x" * 5000, ".", "*", "${oc.env:HOME}", "!!int", "2026-13-01", "[[1]]", "{a: b}", "<script>", "|", "=", "'"),
]
FILES = ["kept", "broken.json", "null.json", "list.json", "binary", "empty", "folder", "torn", "bad.csv", "loop", "no"]
NAMES = ["tiny", "palm-8b", "cpu", "tpu-v4", "a100-80gb", "decode", "paper-table2", "auto", "analytic", "nightly"]
QUICK = {
    "plan": ["model=palm-8b", "num_chips=8", "batch_size=8"],
    "pareto": ["model=palm-8b", "num_chips=8", "batch_size=8", "phase=decode", "out=/dev/null/x"],
    "compare": ["old=kept", "new=kept"],
    "model": ["checkpoint=folder"],
    "import": ["data=list.json"],
    "validate": ["data=bad.csv"],
    "calibrate": ["data=bad.csv"],
    "results": [],
    "report": ["results_dir=kept", "figures=none", "format=csv"],
    "dashboard": ["results_dir=kept"],
    "env": [],
    "estimate": ["topology=v5e:2x2"],
    "nightly": ["run=no"],
    "wandb": ["results_dir=no"],
    "distill": ["student=tiny", "out=/dev/null/x"],
    "jobs": ["run=no"],
}
"""Words with which a command ends soon; what is drawn replaces some of them."""

FIXED = {
    "nightly": ("run",),
    "env": ("devices",),
    "estimate": ("function", "hlo", "stablehlo"),
    "validate": ("engine",),
    "pareto": ("out",),
    "wandb": ("results_dir",),
    "distill": ("student", "out"),
    "jobs": ("out",),
}
"""Keys that are not drawn: other values take long, or would write where a test must not."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    Store(folder / "kept").append([a_row(model="[/b]", error="[red]", status="failed"), a_row(point_id="1")])
    (folder / "folder").mkdir()
    (folder / "torn" / "rows").mkdir(parents=True)
    (folder / "torn" / "rows" / "a.jsonl").write_text('[1]\n{}\nnull\n{"a"')
    for name, content in (
        ("broken.json", '{"a": '),
        ("null.json", "null"),
        ("list.json", '[1,[2],"x"]'),
        ("empty", ""),
    ):
        (folder / name).write_text(content)
    (folder / "binary").write_bytes(b"\xff\xfe\x00\x81")
    (folder / "bad.csv").write_text("a,b\n1\n")
    (folder / "loop").symlink_to("loop")
    return folder


def typed(kind):
    """Texts that a kind takes, and others."""
    match kind:
        case ListOf():
            inner = typed(kind.kind)
            return st.one_of(st.sampled_from([*kind.words, "[]"]), inner, st.lists(inner, max_size=3).map(listed))
        case Choice():
            return st.sampled_from([*kind.names, "x"])
        case Integer():
            return st.one_of(st.integers(-1, 300).map(str), st.sampled_from([str(10**9), str(2**53), str(2**64)]))
        case Number():
            return st.sampled_from(["0", "0.5", "1", "1e-300", "1e300"])
        case Boolean():
            return st.sampled_from(["true", "false"])
    return st.sampled_from([*FILES, *NAMES])


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("name", QUICK)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_typed_ends_in_an_answer_or_a_sentence(folder, capfd, monkeypatch, name, data):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    command = importlib.import_module(f"bench.cli.commands.{MODULES.get(name, name)}")
    keys = [key for key in command.KEYS if key.name not in FIXED.get(name, ())]
    chosen = data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3, unique_by=lambda key: key.name))
    values = {key.name: data.draw(st.one_of(st.sampled_from(ODD), typed(key.takes)), label=key.name) for key in chosen}
    words = [word for word in QUICK[name] if word.partition("=")[0] not in values]
    verbs = [[verb] for verb in command.VERBS] + [[]]
    verb = data.draw(st.sampled_from(verbs))
    capfd.readouterr()
    code = main([name, *verb, *words, *(f"{key}={value}" for key, value in values.items())])
    err = capfd.readouterr().err
    assert code in (0, 1, 2, 3), err
    assert "Traceback" not in err
    if code == 2:
        (line,) = err.splitlines()
        assert line.startswith("shardbench: ")


def test_every_command_is_tried():
    assert {*QUICK, "run"} == set(COMMANDS)


def broken(verb, settings):
    raise KeyError("a\nb")


def test_an_error_that_nobody_foresaw(monkeypatch, capsys):
    monkeypatch.setattr(env, "main", broken)
    assert main(["env"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("nobody foresaw", "KeyError: 'a\\nb'", "report", "SHARDBENCH_TRACEBACK=1", "bench/cli/main.py:"):
        assert part in line
    monkeypatch.setenv("SHARDBENCH_TRACEBACK", "1")
    assert main(["env"]) == 4
    assert "Traceback" in capsys.readouterr().err


def test_an_error_is_one_line_whatever_it_quotes(monkeypatch, capsys):
    def refuse(verb, settings):
        raise ShardbenchError("a\nb\x1b[2J\udcff")

    monkeypatch.setattr(env, "main", refuse)
    assert main(["env"]) == 2
    assert capsys.readouterr().err == "shardbench: a\\nb\\x1b[2J\\udcff\n"


def test_a_long_value_is_cut(capsys):
    assert main(["plan", f"model={'x' * 10**5}"]) == 2
    told = capsys.readouterr().err
    assert len(told) < 1000 + len(", ".join(names("model")))
    assert told.count("x") < 1000


def test_a_row_that_nobody_can_read_is_named(tmp_path, capsys):
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.jsonl").write_text(json.dumps([1]) + "\n")
    assert main(["results", "list", f"results_dir={tmp_path}"]) == 2
    assert f"{rows}{os.sep}a.jsonl line 1" in capsys.readouterr().err


def test_a_key_without_a_kind_takes_text():
    assert Key("x", None, "").read("1e3") == "1e3"

"""Any override of any key with any value is answered or refused in one sentence; paths and names are as typed."""

import os
import subprocess
import sys
from functools import cache

import hydra
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bench.cli.args import RESULTS_DIR, parse
from bench.cli.main import main
from bench.run import evaluate, parallel
from bench.run.make_row import row_without_time
from bench.sweep.catalog import conf_dir, names
from bench.sweep.overrides import in_grammar, parsed

pytestmark = pytest.mark.slow

VALUES = (
    "null", "", "true", "3", "-1", "1.5", ".nan", ".inf", "9" * 23, "-" + "9" * 23, "1e400", "1e3", "abc", "[]",
    "[1,2]", "[a,b]", "[[1,2],[3]]", "{}", "{a:1}", "{a:{b:[1]}}", "'x'", "a b", "a,b", "1,2", "#x", "é",
    "${batch_size}", "${nokey}", "${hydra:job.num}", "???", "[null]", "2147483647", "2147483648", "0x10", "~", "a=b",
    "[b]x[/b]", "range(1,3)", "range(3,1)", "choice(1,2)", "glob(*)", "glob(no*)", "interval(0,1)", "palm", "tiny",
    "jax", "analytic", "[palm-8b,tiny]", "cpu", "auto", "x" * 300,
)  # fmt: skip
OTHERS = (
    "sweep",
    "nokey",
    "engine.nokey",
    "hydra/launcher",
    "hydra/sweeper",
    "hydra.mode",
    "hydra.searchpath",
    "hydra.job.chdir",
)


def keys(content, prefix=""):
    for key, value in content.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")


@cache
def all_keys():
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = [hydra.compose("config", overrides=[f"engine={engine}"]) for engine in names("engine")]
    found = {key for config in composed for key in keys(OmegaConf.to_container(config))}
    return sorted(found | set(OTHERS))


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory):
    """The command line in a folder of its own; points of engines that need a process are not run."""

    def not_run(_config, tasks, _timing, _environment, may_start, **_places):
        return (row_without_time(task, "failed", "not run") if may_start(task) else None for task in tasks)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("anywhere"))
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr(evaluate, "evaluate_shared", not_run)
        patch.setattr(evaluate, "evaluate_inside", not_run)
        patch.setattr(parallel, "evaluate_shared", not_run)
        yield


@st.composite
def overrides(draw):
    lead = draw(st.sampled_from(["", "", "", "+", "++", "~"]))
    key = draw(st.sampled_from(all_keys()))
    return f"~{key}" if lead == "~" else f"{lead}{key}={draw(st.sampled_from(VALUES))}"


@pytest.mark.slow(seconds=15)
@examples(max_examples=20)
@given(
    words=st.lists(overrides(), min_size=1, max_size=2),
    engine=st.sampled_from(names("engine")),
    flags=st.sampled_from([[], [], ["-m"]]),
)
def test_any_override_of_any_key_ends_in_an_exit_code(anywhere, words, engine, flags):
    assert main(["run", "print=none", f"engine={engine}", *words, *flags]) in (0, 2, 3)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=3"], "model=3: is not known"),
        (["hw=null"], "hw=null: names no choice"),
        (["~batch_size"], "~batch_size=: leaves no value"),
        (["~model"], "~model=: leaves no value"),
        (["-m", "--cfg", "job"], "leave out -m"),
        (["timing=null"], "timing=null: names no choice"),
        (["timing=[default]"], "use one, or -m"),
        (["wandb=3"], "wandb=3: is not known"),
        (["points=3"], "points=3: must be a list of mappings"),
        (["points=[]"], "points=[]: must be a list of mappings"),
        (["batch_size=99999999999999999999999"], "is larger than 2147483647"),
        (["model.num_layers=99999999999999999999999"], "is larger than 2147483647"),
        (["engine=[]"], "engine=[]: is an empty list"),
        (["+engine.nokey=3"], "engine.nokey=3: is not a setting of engine=analytic"),
        (["engine=jax", "+engine.temprature=3"], "did you mean engine.temperature="),
        (["engine.isolated=maybe"], "engine.isolated=maybe: must be true or false"),
        (["engine=jax", "engine.seed=x"], "engine.seed=x: must be an integer"),
        (["engine=jax", "engine.checkpoint=" + "x" * 300], "File name too long"),
        (["hw.max_chips=many"], "hw.max_chips=many: must be an integer"),
        (["hw.peak_flops_per_s=3"], "hw.peak_flops_per_s=3: must be a mapping"),
        (["+timing.sample=3"], "timing.sample=3: is not a key of conf/timing"),
        (["+batchsize=3"], "did you mean batch_size="),
        (["engine=jax", "engine.prefil_chunk=3"], "did you mean engine.prefill_chunk="),
        (["model=[tiny,palm-8b]", "model.num_layer=3"], "did you mean model.num_layers="),
        (["timing.min_time=3"], "did you mean timing.min_time_s="),
        (["model=zzz"], "model=zzz: is not known; use one of conf/model; shardbench run --help lists them"),
        (["batch_size=1,2"], "use batch_size=[1,2] for a grid, or -m"),
        (["model=tiny,palm-8b"], "use model=[tiny,palm-8b] for a grid, or -m"),
        (["batch_size=range(1,3)"], "use -m"),
        (["-m", "batch_size=range(3,1)"], "stands for no value"),
        (["-m", "batch_size=interval(1,3)"], "INTERVAL"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["-cn", "nowhere"], "--config-name=nowhere: is not a file"),
        (["hydra.job.chdir=true"], "use results_dir=FOLDER"),
        (["results_dir="], "results_dir=: is empty"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_with_key_value_and_remedy(anywhere, capfd, words, sentence):
    assert main(["run", *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert sentence in line


def test_a_recipe_with_bad_yaml_is_named_with_its_line(anywhere, tmp_path, capfd):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text("# @package _global_\npoints: [{batch_size: 1\n", encoding="utf-8")
    for words in (["+sweep=mine"], ["sweep=[mine]"], ["-m", "sweep=mine", "batch_size=1,2"]):
        assert main(["run", "--config-dir", str(tmp_path), *words]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert "mine.yaml:" in line
        assert "is not valid YAML" in line


TYPED = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0$"), min_size=1, max_size=12)


@given(text=TYPED.filter(lambda text: text != "~" and not text.startswith("~/")))
def test_a_folder_is_what_was_typed_in_every_command(text):
    assert parsed(in_grammar([f"results_dir={text}"], multirun=False)[0]).value() == text
    assert parse("report", [f"results_dir={text}"], [RESULTS_DIR], {})[1]["results_dir"] == text


@pytest.mark.parametrize("key", ["engine.checkpoint", "sweep_name", "wandb.entity"])
def test_null_is_no_name_where_there_may_be_none(key):
    assert parsed(in_grammar([f"{key}=null"], multirun=False)[0]).value() is None
    assert parsed(in_grammar([f"{key}=a,b#c"], multirun=False)[0]).value() == "a,b#c"


@pytest.mark.parametrize("name", ["1e3", "true", "a=b#c", "it's", "é,ü", "[x]"])
def test_rows_are_in_the_folder_of_that_name(shardbench, monkeypatch, name):
    assert shardbench.here(monkeypatch, "run", f"results_dir={name}", "print=none") == 0
    assert [path.name for path in shardbench.folder.iterdir()] == [name]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cfg", "job"], "batch_size: 64"),
        (["--cfg", "job", "--resolve", "--package", "model", "model=tiny"], "name: tiny"),
        (["--cfg", "hydra"], "launcher"),
        (["--info", "searchpath"], "conf"),
        (["--info", "defaults"], "model/palm-540b"),
        (["--hydra-help"], "--multirun"),
        (["--version"], "Hydra"),
    ],
)
def test_flags_of_hydra_that_show_something(shardbench, words, said):
    done = shardbench("run", *words)
    assert said in done.stdout
    assert done.stderr == ""
    assert not shardbench.results.exists()


def test_hydra_writes_and_logs_where_it_is_asked_to(shardbench):
    shardbench("run", "hydra.output_subdir=.hydra", "hydra.run.dir=out", "print=none", "wandb.mode=disabled")
    assert (shardbench.folder / "out" / ".hydra" / "config.yaml").is_file()
    assert len(shardbench.stored()) == 1
    shardbench("run", "-m", "hydra.sweep.dir=sweep", "batch_size=1,2", "print=none", "wandb.mode=disabled")
    assert (shardbench.folder / "sweep" / "multirun.yaml").is_file()
    assert len(shardbench.stored()) == 3


def test_a_variable_of_a_job_is_set_where_its_points_run(shardbench):
    words = shardbench.scripted("batch_size=1", "print=none", "+hydra.job.env_set.SHARDBENCH_TEST=seen")
    code = f"""
import os
from bench.cli.main import main
from bench.run import evaluate, parallel, runner
runner.run = lambda requests: print(os.environ["SHARDBENCH_TEST"]) or runner.RunSummary()
main({words!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=shardbench.folder, env=shardbench.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[0] == "seen"
    assert "SHARDBENCH_TEST" not in os.environ

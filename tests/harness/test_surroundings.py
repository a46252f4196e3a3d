"""Where a command is started changes nothing: the current folder, the environment, the standard streams."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from builders.points import point
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from quick_engines import quick_config

from bench.run.identify import program_ids

SCRIPT = "import sys; from bench.cli.main import main; sys.exit(main())"
"""What the installed command ``shardbench`` does."""
PACKAGES = ["bench", "engines", "conf", "numpy", "jax", "torch", "hydra", "rich", "wandb", "tests"]
MODULES = ["json", "random", "typing", "pickle", "logging", "tempfile", "selectors", "subprocess", "dataclasses"]
QUIET = ["wandb.mode=disabled", "print=json"]
ON_CPU = ["run", "model=tiny", "hw=cpu", "phase=decode", "batch_size=2", "input_len=8", "output_len=2", *QUIET]
SHORTLY = ["weight_dtype=float32", "timing.min_time_s=0", "timing.min_samples=3", "timing.max_samples=10"]
FOR_TPU = ["run", "model=palm-8b", "hw=tpu-v4", "num_chips=8", "phase=decode", "input_len=32", "output_len=2", *QUIET]


@pytest.fixture
def full_folder(shardbench):
    """A user's folder: every name that Python or these packages might look for, and importing any ends the process."""
    for name in PACKAGES:
        (shardbench.folder / name).mkdir()
        (shardbench.folder / name / "__init__.py").write_text(f"raise SystemExit('took {name} of the user')")
    for name in [*MODULES, "sitecustomize", "usercustomize"]:
        (shardbench.folder / f"{name}.py").write_text(f"raise SystemExit('took {name} of the user')")
    return shardbench


def as_installed(shardbench, *words, env=None, **streams):
    """The command as it is installed, with its path as the installed script has it."""
    return subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, *words],
        cwd=shardbench.folder,
        env=shardbench.env | (env or {}),
        check=False,
        **(streams or {"capture_output": True, "encoding": "utf-8"}),
    )


def answered(done):
    assert done.returncode == 0, done.stderr
    return [(row["engine"], row["status"]) for row in map(json.loads, done.stdout.splitlines())]


@pytest.mark.slow(seconds=20)
@pytest.mark.thorough
def test_modules_of_the_user_are_taken_for_no_library(full_folder, tmp_path_factory):
    quick = {"SHARDBENCH_CONFIG_DIR": str(quick_config(tmp_path_factory.mktemp("own")))}
    measured = as_installed(full_folder, *ON_CPU, *SHORTLY, "num_chips=1", "engine=jax", env=quick)
    assert answered(measured) == [("jax", "ok")]
    # Its child starts others, the ranks.
    ranks = as_installed(full_folder, *ON_CPU, *SHORTLY, "num_chips=2", "engine=torch", "tensor_parallel=2")
    assert answered(ranks) == [("torch", "ok")]


@pytest.mark.slow
def test_modules_of_the_user_are_no_compiler(full_folder):
    pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")
    asked = as_installed(full_folder, *FOR_TPU, "batch_size=8", "engine=[compiled,analytic]", "engine.cache_dir=")
    assert answered(asked) == [("compiled", "ok"), ("analytic", "ok")]


def test_programs_are_identified_from_any_folder(full_folder, monkeypatch):
    monkeypatch.chdir(full_folder.folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep + os.environ.get("PYTHONPATH", ""))  # an empty entry is the folder
    config = {"_target_": "engines.analytic.engine.AnalyticEngine", "name": "analytic"}
    asked = point(
        "palm-8b", "tpu-v4", engine="analytic", phase="decode", num_chips=8, batch_size=8, input_len=32, output_len=2
    )
    first, second = program_ids(config, [asked, replace(asked, batch_size=16)])
    assert None not in (first, second)
    assert first == program_ids(config, [asked])[0]


def test_started_with_m_the_current_folder_is_not_first(shardbench):
    for name in MODULES:
        (shardbench.folder / f"{name}.py").write_text(f"raise SystemExit('took {name} of the user')")
    shardbench(*shardbench.scripted("batch_size=1", "print=none"))
    assert [row["status"] for row in shardbench.stored()] == ["ok"]


def test_a_checkout_needs_no_installation(shardbench, tmp_path):
    """In a checkout that nothing has installed, the children find the same packages as their parent."""
    from engines.host.python import ROOT, module_words

    words = [sys.executable, "-S", "-c", "import sys; sys.path.append(sys.argv[1]); print(sys.path)", str(ROOT)]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    assert str(ROOT) in subprocess.run(words, env=bare, capture_output=True, text=True, check=True).stdout
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("raise SystemExit('took bench of the user')")
    asked = subprocess.run(
        module_words("bench.cli.main", "--help"), cwd=tmp_path, env=bare, capture_output=True, text=True, check=True
    )
    assert asked.stdout.startswith("shardbench: ")


ENVIRONMENTS = {
    "PYTHONOPTIMIZE": ["1", "2"],
    "PYTHONWARNINGS": ["error", "default,error::DeprecationWarning"],
    "PYTHONDONTWRITEBYTECODE": ["1"],
    "PYTHONUNBUFFERED": ["1"],
    "PYTHONIOENCODING": ["ascii", "ascii:strict", "latin-1", "utf-16"],
    "PYTHONUTF8": ["0", "1"],
    "LC_ALL": ["C", "C.UTF-8", "nowhere"],
    "COLUMNS": ["1", "0", "wide"],
    "TERM": ["dumb", ""],
    "NO_COLOR": ["1"],
    "FORCE_COLOR": ["1"],
    "TMPDIR": ["/nowhere/at/all", "/dev/null"],
    "HOME": ["/nowhere/at/all", ""],
}


@pytest.mark.slow(seconds=10)
@settings(max_examples=5, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(env=st.fixed_dictionaries({}, optional={name: st.sampled_from(each) for name, each in ENVIRONMENTS.items()}))
@pytest.mark.thorough
def test_no_variable_of_the_environment_costs_a_point(shardbench, env):
    words = shardbench.scripted("batch_size=[1,105]", "resume=false", "print=table", "sweep_name=größer…")
    before = len(shardbench.stored())
    done = as_installed(shardbench, *words, env=env, capture_output=True)
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    rows = shardbench.stored()[before:]
    assert [(row["batch_size"], row["status"]) for row in rows] == [(1, "ok"), (105, "unsupported")]
    assert {row["sweep"] for row in rows} == {"größer…"}


def test_a_name_is_the_same_text_in_every_locale(shardbench):
    """Names of files too, where Python would have only ASCII for them."""
    words = shardbench.scripted("batch_size=1", "print=none", "results_dir=größer")
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = as_installed(shardbench, *words, env=bare)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in shardbench.folder.glob("gr*")] == ["größer"]


def test_a_deleted_current_folder_is_one_sentence(shardbench):
    gone = shardbench.folder / "gone"
    gone.mkdir()
    code = f"import os; os.rmdir(os.getcwd()); import sys; sys.argv[1:] = {{!r}}; {SCRIPT}"
    for words, exit_code in ((["results", "list"], 2), (["--help"], 0)):
        gone.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-P", "-c", code.format(words)],
            cwd=gone,
            env=shardbench.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == exit_code
        assert len(done.stderr.splitlines()) == (exit_code == 2)

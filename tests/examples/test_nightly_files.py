"""The files that run a night on GitHub, by systemd and by cron: their own commands, executed here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NIGHTLY = ROOT / "examples" / "nightly"
RECORDS = """#!/bin/sh
echo "$PYTHONPATH | $*" >> "$RECORD"
for word in "$@"; do case "$word" in date=*) day="${word#date=}";; out=*) out="${word#out=}";; esac; done
if [ "$1" = nightly ] && [ "$CODE" != 2 ]; then
  mkdir -p "$out/$day" nights/nightly/$day
  echo "# verdict" > "$out/$day/summary.md"; echo "[]" > "$out/$day/benchmark.json"; echo page > "$out/dashboard.html"
  date +%N > nights/nightly/$day/rows
fi
exit "${CODE:-0}"
"""
"""A shardbench that writes down how it is called, and the files of a night that the steps after it need."""


@pytest.fixture
def machine(tmp_path):
    """An environment with that shardbench on the path."""
    script = tmp_path / "bin" / "shardbench"
    script.parent.mkdir()
    script.write_text(RECORDS)
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}", "RECORD": str(tmp_path / "record")}


def workflow():
    return yaml.safe_load((NIGHTLY / "github-actions.yml").read_text())


def steps():
    """The shell steps of the workflow but the installation, by name."""
    return {
        each["name"]: each
        for each in workflow()["jobs"]["night"]["steps"]
        if "run" in each and each["name"] != "Install"
    }


def a_night(folder, machine, **more):
    """Run the shell steps in their order, as GitHub's bash does. Returns the exit code of the last, and its outputs."""
    folder.mkdir()
    files = {name: str(folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    environment = {**machine, **files, "SWEEP": "compiler-nightly", **more}
    for each in steps().values():
        output = Path(files["GITHUB_OUTPUT"])
        outputs = dict(line.split("=") for line in output.read_text().split()) if output.exists() else {}
        given = {
            name: outputs[re.fullmatch(r"\$\{\{ steps\.night\.outputs\.(\w+) \}\}", value)[1]]
            for name, value in each.get("env", {}).items()
        }
        words = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", each["run"]]
        done = subprocess.run(words, cwd=folder, env=environment | given, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.returncode
    return 0


def nights_in(remote):
    listed = subprocess.run(
        ["git", "--git-dir", str(remote), "log", "--format=%s", "nights"], capture_output=True, text=True, check=True
    )
    return listed.stdout.splitlines()


def test_the_workflow_keeps_nights_and_fails_after_them(tmp_path, machine):
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(remote)], check=True)
    assert a_night(tmp_path / "first", machine, REMOTE=str(remote)) == 0
    assert len(nights_in(remote)) == 1
    assert (tmp_path / "first" / "GITHUB_STEP_SUMMARY").read_text() == "# verdict\n"
    assert (tmp_path / "first" / "site" / "index.html").read_text() == "page\n"
    assert (tmp_path / "first" / "benchmark.json").read_text() == "[]\n"
    # A regression: the night is kept first, and then the job fails.
    assert a_night(tmp_path / "second", machine, REMOTE=str(remote), CODE="1") == 1
    assert len(nights_in(remote)) == 2
    # A mistake in the command: no night.
    assert a_night(tmp_path / "third", machine, REMOTE=str(remote), CODE="2") == 2
    assert len(nights_in(remote)) == 2
    called = Path(machine["RECORD"]).read_text().splitlines()
    assert all(
        " nightly sweep=compiler-nightly date=20" in each and "results_dir=nights out=site" in each for each in called
    )


def test_what_the_workflow_names_is_there():
    from bench.cli.commands.nightly import KEYS
    from bench.sweep.catalog import names

    job = workflow()["jobs"]["night"]
    (command,) = re.findall(r"shardbench nightly (.*) \|\|", steps()["Run the night"]["run"])
    assert {word.partition("=")[0] for word in command.split()} <= {key.name for key in KEYS}
    assert {"nightly", "compiler-nightly"} <= set(names("sweep"))
    assert "compiler-nightly" in job["env"]["SWEEP"]
    pyproject = (ROOT / "pyproject.toml").read_text()
    (install,) = [each["run"] for each in job["steps"] if each.get("name") == "Install"]
    extras = re.search(r"\[(.*)\]", install)[1].split(",")
    assert all(f"\n{extra} = [" in pyproject for extra in extras)
    # Nothing but actions of a fixed version.
    assert all("@v" in each["uses"] for each in job["steps"] if "uses" in each)


def installed(folder):
    """The folder of the unit and of the crontab, in which shardbench is installed."""
    command = folder / ".venv" / "bin" / "shardbench"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\necho "$@"; exit "${CODE:-0}"\n')
    command.chmod(0o755)
    return folder


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path):
    units = []
    srv = installed(tmp_path / "srv")
    for path in sorted(NIGHTLY.glob("shardbench-nightly.*")):
        units.append(tmp_path / path.name)
        text = path.read_text().replace("/srv/shardbench", str(srv)).replace("User=shardbench", "User=root")
        units[-1].write_text(text)
    assert len(units) == 2
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "shardbench" in line]
    assert (done.returncode, ours) == (0, [])
    (when,) = re.findall(r"OnCalendar=(.*)", (NIGHTLY / "shardbench-nightly.timer").read_text())
    subprocess.run(["systemd-analyze", "calendar", when], capture_output=True, check=True)


def test_the_line_of_crontab(tmp_path):
    srv = installed(tmp_path / "srv")
    (line,) = [each for each in (NIGHTLY / "crontab").read_text().splitlines() if each and not each.startswith("#")]
    fields = line.split(maxsplit=5)
    assert [re.fullmatch(r"[\d*]+", each) is not None for each in fields[:5]] == [True] * 5
    command = fields[5].replace("/srv/shardbench", str(srv))
    assert "%" not in command  # cron makes it a new line
    run = lambda code: subprocess.run(  # noqa: E731
        ["sh", "-c", command], env={**os.environ, "CODE": code}, capture_output=True, text=True, check=False
    )
    assert run("0").stdout == ""
    assert (srv / "nightly.log").read_text() == "nightly\n"
    assert "exit code 1" in run("1").stdout


def releases(*words, machine):
    script = [sys.executable, str(NIGHTLY / "compiler_releases.py"), *words]
    return subprocess.run(
        script, cwd=Path(machine["RECORD"]).parent, env=machine, capture_output=True, text=True, check=False
    )


def test_each_release_of_a_compiler_is_a_night(tmp_path, machine):
    for version in ("0.0.45", "0.0.9"):
        (tmp_path / "wheels" / version / "libtpu").mkdir(parents=True)
    machine["PYTHONPATH"] = "/mine"
    done = releases("0.0.45@2026-08-01", "0.0.9@2025-01-02", "results_dir=r", "run=engine.timeout_s=9", machine=machine)
    assert done.returncode == 0, done.stderr
    wheels = tmp_path / "wheels"
    common = "print=none engine.timeout_s=9"
    assert Path(machine["RECORD"]).read_text().splitlines() == [
        f"{wheels}/0.0.9:/mine | run +sweep=compiler-nightly results_dir=r/nightly/2025-01-02 {common}",
        f"{wheels}/0.0.45:/mine | run +sweep=compiler-nightly results_dir=r/nightly/2026-08-01 {common}",
        "/mine | report compiler results_dir=r out=reports",
    ]


@pytest.mark.parametrize("words", [[], ["sweep"], ["result_dir=r", "1.0"], ["1.0@2026-01-01", "1.1@2026-01-01"]])
def test_words_that_say_nothing(words, machine):
    done = releases(*words, machine=machine)
    assert done.returncode == 2
    assert done.stderr
    assert not Path(machine["RECORD"]).exists()

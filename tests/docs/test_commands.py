"""Every command that documentation and help show is one: the tutorial's run, all others are read by their parsers."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import forked_commands
import pytest
from quick_engines import quick_config

from bench.cli.args import help_text, parse
from bench.cli.main import COMMANDS, HELP, MODULES
from bench.sweep.catalog import names

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIAL = ("first-run", "own-model", "own-chip")
BLOCK = re.compile(r'^```(?P<kind>sh|yaml)(?: title="(?P<file>[^"]+)")?\n(?P<text>.*?)^```', re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r'^--8<-- "(?P<file>[^"]+)"\n', re.MULTILINE)


def blocks(page):
    for match in BLOCK.finditer(page.read_text()):
        text = SNIPPET.sub(lambda snippet: (ROOT / snippet["file"]).read_text(), match["text"])
        yield match["kind"], match["file"], text


def commands(text):
    """The words of each ``shardbench`` line, without what a shell does with its output."""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0].endswith("shardbench"):
            yield words[1 : words.index(">")] if ">" in words else words[1:]


def all_commands():
    pages = sorted([*DOCS.glob("how-to/*.md"), *DOCS.glob("generate/*.md"), *DOCS.glob("explanation/*.md")])
    for page in pages:
        for kind, _, text in blocks(page):
            if kind == "sh":
                yield from commands(text)
    readme = (ROOT / "README.md").read_text()
    yield from commands("\n".join(line.strip() for line in readme.splitlines() if line.startswith("    ")))
    yield from commands("\n".join(line.strip() for line in HELP.splitlines() if line.startswith("  ")))
    for name in COMMANDS:
        if name != "run":
            yield from commands("\n".join(command_of(name).EXAMPLES))


def command_of(name):
    return importlib.import_module(f"bench.cli.commands.{MODULES.get(name, name)}")


ALL = [[*words] for words in dict.fromkeys(map(tuple, all_commands())) if words[0] in COMMANDS]


@pytest.mark.parametrize("words", [words for words in ALL if words[0] != "run"], ids=" ".join)
def test_a_command_is_read(words):
    module = command_of(words[0])
    parse(words[0], words[1:], module.KEYS, module.VERBS)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "run"])
def test_a_default_that_help_shows_can_be_typed(name):
    module = command_of(name)
    shown = dict(re.findall(r"^  (\w+) .* \(default (\S+)\)$", help_text(name, module), re.MULTILINE))
    required = {key.name for key in module.KEYS if key.required}
    typed = [f"{key}={value}" for key, value in shown.items() if value != "none"]
    _, settings = parse(name, [*typed, *(f"{key}=x" for key in required)], module.KEYS, module.VERBS)
    assert {key: settings[key] for key in settings.keys() - required} == {
        key.name: key.default for key in module.KEYS if not key.required
    }


def succeed_in_one_process(commands, folder, env):
    """Run them in order, in that folder, with what one process imports once."""
    code = (
        "import sys; from bench.cli.main import main\n"
        "for line in sys.stdin:\n"
        "    words = line.rstrip('\\n').split('\\t')\n"
        "    if main(words): sys.exit(line)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(map("\t".join, commands)),
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_runs_are_composed(tmp_path):
    """In one process, with files for the models that a reader is to have."""
    runs = [words for words in ALL if words[0] == "run"]
    assert len(runs) > 15
    (tmp_path / "mine" / "model").mkdir(parents=True)
    tiny = (ROOT / "conf" / "model" / "tiny.yaml").read_text()
    for words in runs:
        for model in (word.removeprefix("model=") for word in words if word.startswith("model=")):
            if model not in names("model"):
                (tmp_path / "mine" / "model" / f"{model}.yaml").write_text(tiny)
    asked_for = []
    for words in runs:
        asked = ["hw=h100-80gb" if word == "hw=here" else word for word in words]
        if "-m" in asked:  # one config shows no jobs: that of the first
            asked = [word for word in asked if word != "-m" and not word.startswith(("hydra/", "hydra."))]
            asked = [word if "=[" in word else word.partition(",")[0] for word in asked]
        asked_for.append([*asked, *([] if "--cfg" in asked else ["--cfg", "job"])])
    succeed_in_one_process(asked_for, tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.fixture(scope="module")
def quickly(tmp_path_factory):
    """An environment in which what is measured takes no longer than it must; see ``quick_engines``."""
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "WANDB_MODE": "disabled",
        "SHARDBENCH_CONFIG_DIR": str(quick_config(tmp_path_factory.mktemp("quick"))),
    }


@pytest.mark.slow(seconds=20)
def test_the_examples_of_the_readme_run_in_an_empty_folder(tmp_path, quickly):
    """Outside a checkout, in order: no command needs a file that a reader hasn't got."""
    readme = (ROOT / "README.md").read_text()
    lines = "\n".join(line.strip() for line in readme.splitlines() if line.startswith("    "))
    told = [words for words in commands(lines) if words[0] in COMMANDS]
    assert {words[0] for words in told} >= {"run", "plan", "validate", "report"}
    succeed_in_one_process(told, tmp_path, quickly)


@pytest.mark.slow(seconds=30)
def test_the_tutorial_runs_from_beginning_to_end(tmp_path, quickly):
    """As a reader does it: write the files that it shows, type every command, in order, in one folder."""
    ran = 0
    for name in TUTORIAL:
        for kind, file, text in blocks(DOCS / "tutorial" / f"{name}.md"):
            if file is not None:
                (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / file).write_text(text)
            elif kind == "sh":
                lines = [line for line in text.splitlines() if line and not line.startswith("#")]
                typed = [*commands(text)]
                assert len(typed) == len(lines), f"{name}: not only commands:\n{text}"
                for words in typed:
                    done = forked_commands.run(words, tmp_path, quickly)
                    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
                    ran += 1
    assert ran > 12
    assert (tmp_path / "reports" / "first" / "report.md").is_file()

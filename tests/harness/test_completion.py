"""Completion in a real bash: commands, keys and values; it never prints an error or changes the shell."""

import os
import subprocess
import sys

import pytest

from bench.cli.completion import candidates
from bench.cli.main import COMMANDS, MODULES, main
from bench.sweep.catalog import names


def complete(line):
    return candidates(line, tuple(COMMANDS), MODULES)


@pytest.fixture
def bash(tmp_path):
    """A line with the cursor at its end → what bash offers, with shardbench on the path."""
    program = tmp_path / "shardbench"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bench.cli.main "$@"\n', encoding="utf-8")
    program.chmod(0o755)

    def run(line, words):
        # The words as bash itself splits them, at = too.
        code = (
            'set -eu\neval "$(shardbench --completion bash)"\n'
            f"COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({words}) COMP_CWORD=1\n"
            "_shardbench shardbench x y\nprintf '%s\\n' ${COMPREPLY[@]+\"${COMPREPLY[@]}\"}\n"
        )
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return [found for found in done.stdout.split("\n") if found]

    return run


def test_bash_completes(bash):
    assert bash("shardbench pl", "shardbench pl") == ["plan "]
    assert bash("shardbench plan model=palm-5", "shardbench plan model = palm-5") == [
        f"{name} " for name in names("model") if name.startswith("palm-5")
    ]
    assert bash("shardbench nothing x", "shardbench nothing x") == []
    assert bash("shardbench report out=", "shardbench report out =") == []


def test_commands_verbs_keys_and_values():
    assert complete("shardbench ")[: len(COMMANDS)] == [f"{name} " for name in COMMANDS]
    assert "check " in complete("shardbench results ")
    assert "results_dir=" in complete("shardbench results check ")
    assert "check " not in complete("shardbench results list ")
    assert complete("shardbench plan model=tiny mod") == []  # a key is given once
    assert complete("shardbench run +sweep=paper") == [
        f"{name} " for name in names("sweep") if name.startswith("paper")
    ]
    assert complete("shardbench run ffn_lay") == ["ffn_layout="]
    assert "ws_2d " in complete("shardbench run ffn_layout=")
    assert complete("shardbench env devices=") == ["true ", "false "]
    assert "paper-table2 " in complete("shardbench validate data=")
    assert complete("shardbench plan batch_size=") == ["auto "]
    assert complete("shardbench report out=") == []  # the shell completes paths


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_keys_and_none_is_lost(name):
    assert all(each.endswith(("=", " ")) for each in complete(f"shardbench {name} "))
    assert complete(f"shardbench {name} ")


def test_what_does_not_complete(capsys):
    assert main(["--completion", "tcsh"]) == 2
    assert main(["run", "-sc", "install=bash"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all("bash" in line for line in err.splitlines())

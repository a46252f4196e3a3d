"""Published tables are given by name, so that commands of the documentation work without a checkout."""

import json
from pathlib import Path

import pytest

from bench.cli.args import help_text
from bench.cli.commands import calibrate, validate
from bench.cli.main import main
from bench.validate.data import sources_of
from engines.core.errors import InvalidRequest
from engines.published.table import TIMED_FILES, tables


def test_every_table_has_a_name_and_the_name_is_its_file():
    assert [path.name for path in tables().values()] == list(TIMED_FILES)
    for name, path in tables().items():
        assert sources_of([name]) == [path]
        assert name.replace("-", "") == path.stem.replace("_", "").replace("-", "")
    assert sources_of([]) == list(tables().values())


@pytest.mark.thorough
def test_a_table_by_name_is_its_file_in_every_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in (["validate"], ["calibrate", "hw=tpu-v4"]):
        answers = []
        for data in ("paper-table2", str(tables()["paper-table2"])):
            assert main([*command, f"data={data}", "print=json"]) == 0
            # calibrate says where the rows are from, in the user's words.
            answers.append(json.loads(capsys.readouterr().out.replace(data, "paper-table2")))
        assert answers[0] == answers[1]
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_ones_own_with_that_name_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("paper-table2").touch()
    assert sources_of(["paper-table2"]) == [Path("paper-table2")]


def test_an_unknown_name_is_answered_with_all_names():
    with pytest.raises(InvalidRequest) as caught:
        sources_of(["paper-table9"])
    for name in tables():
        assert name in str(caught.value)


@pytest.mark.parametrize("command", [validate, calibrate])
def test_help_lists_the_names_or_says_that_there_are_some(command):
    text = help_text("validate", command)
    assert "published" in text
    assert command is calibrate or all(name in text for name in tables())

"""Running a subcommand of the planner and reading what it prints."""

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from bench.cli.args import parse


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """``command("plan", "model=palm-8b")`` → exit code and the JSON on stdout."""

    def run(name: str, *words: str) -> tuple[int, Any]:
        module = import_module(f"bench.cli.commands.{name}")
        verb, settings = parse(name, [*words, "print=json"], module.KEYS, module.VERBS)
        code = module.main(verb, settings)
        return code, json.loads(capsys.readouterr().out)

    return run

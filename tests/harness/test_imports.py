"""What imports what, and what the command line costs to start."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.main import COMMANDS, MODULES

ROOT = Path(__file__).parents[2]
SHARED = {"core", "host", "weights", "transformer"}
"""What engines share: each may import those before it."""
HEAVY = {"jax", "torch", "wandb", "matplotlib", "scipy", "pandas", "hydra"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", sorted((ROOT / "engines").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_engines_know_neither_the_harness_nor_each_other(path):
    inside = path.relative_to(ROOT / "engines").parts
    own = inside[0]
    for module in imported(path):
        parts = module.split(".")
        assert parts[0] != "bench", f"{path} imports {module}"
        if parts[0] == "engines" and len(parts) > 1:
            assert parts[1] == own or parts[1] in SHARED, f"{path} imports {module}"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "run"])
def test_every_command_says_the_same_of_itself_in_both_helps(name):
    module = importlib.import_module(f"bench.cli.commands.{MODULES.get(name, name)}")
    assert COMMANDS[name] == module.SUMMARY


def test_every_module_of_a_command_is_a_command():
    own = {path.stem for path in (ROOT / "bench" / "cli" / "commands").glob("*.py")} - {"__init__"}
    assert own == {MODULES.get(name, name) for name in COMMANDS}


@pytest.mark.parametrize("words", [("--help",), ("report", "--help"), ("results", "--help")])
def test_help_imports_nothing_heavy(words):
    code = f"import sys; from bench.cli.main import main; main({list(words)!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())

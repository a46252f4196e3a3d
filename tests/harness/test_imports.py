"""What imports what, and what the command line costs to start."""

import ast
import graphlib
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.main import COMMANDS, MODULES
from bench.sweep.catalog import load_group, names
from bench.sweep.commented import settings
from engines.core.conf import conf_dir

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("bench", "engines") for path in (ROOT / folder).rglob("*.py"))
SHARED = {"core", "host", "offload", "weights", "transformer"}
"""What engines share: each may import those before it."""
HEAVY = {"jax", "torch", "wandb", "matplotlib", "scipy", "pandas", "hydra", "plotly"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_engines_know_neither_the_harness_nor_each_other():
    wrong = []
    for path in SOURCES:
        folder, *inside = path.relative_to(ROOT).parts
        known = {inside[0], *SHARED}
        for module in imported(path) if folder == "engines" else ():
            first, *rest = module.split(".")
            if first == "bench" or (first == "engines" and rest and rest[0] not in known):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def imports_at_run_time(tree):
    """Every import of a module, those inside functions too; not those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from imports_at_run_time(node)


def import_graph(modules):
    """Module → the modules of ``modules`` (name → source) that it imports anywhere."""
    graph = {}
    for name, source in modules.items():
        targets = set()
        for node in imports_at_run_time(ast.parse(source)):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            else:
                # `from package import module` imports the module.
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= (inner & modules.keys()) or {node.module}
        graph[name] = targets & modules.keys()
    return graph


def circle(graph):
    """Modules that import one another in a circle, as graphlib finds them; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_each_other_in_a_circle():
    modules = {}
    for folder in ("bench", "engines"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            modules[".".join(part for part in parts if part != "__init__")] = path.read_text()
    assert circle(import_graph(modules)) == []


def test_a_circle_is_found_in_functions_and_not_in_type_checking_blocks():
    modules = {"a": "import b", "b": "def f():\n    from c import x", "c": "if TYPE_CHECKING:\n    import a"}
    assert circle(import_graph(modules)) == []
    modules["c"] = "class C:\n    def m(self):\n        import a"
    assert set(circle(import_graph(modules))) == {"a", "b", "c"}


def test_no_module_has_more_than_300_lines():
    assert [str(path.relative_to(ROOT)) for path in SOURCES if len(path.read_text().splitlines()) > 300] == []


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "run"])
def test_every_command_says_the_same_of_itself_in_both_helps(name):
    module = importlib.import_module(f"bench.cli.commands.{MODULES.get(name, name)}")
    assert COMMANDS[name] == module.SUMMARY


def test_every_module_of_a_command_is_a_command():
    own = {path.stem for path in (ROOT / "bench" / "cli" / "commands").glob("*.py")} - {"__init__"}
    assert own == {MODULES.get(name, name) for name in COMMANDS}


def test_help_imports_nothing_heavy():
    """In one process: what the help of any command imports stays imported."""
    asked = [["--help"], *([name, "--help"] for name in COMMANDS if name != "run")]
    code = (
        "import json, sys; from bench.cli.main import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    before = {*sys.modules}; main(words)\n"
        "    print(json.dumps([words[0], *({*sys.modules} - before)]), file=sys.stderr)"
    )
    words = [sys.executable, "-c", code, json.dumps(asked)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [first for first, *_ in told] == [first for first, *_ in asked]
    assert {first: found for first, *modules in told if (found := HEAVY & {*modules})} == {}


def test_the_help_of_run_has_every_key_with_its_value_and_meaning_without_what_runs_points():
    code = (
        "import sys; from bench.cli.main import main;"
        "main(['run', '--help', 'engine=jax', 'batch_size=3']); print('bench.run.runner' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    shown = {line.partition(":")[0]: line for line in done.stdout.splitlines() if not line.startswith(" ")}
    asked = {each.key: each for each in settings(conf_dir() / "config.yaml")}
    told = [
        f"engine.{each.key.partition('.')[0]}"
        for each in settings(conf_dir() / "engine/jax.yaml")
        if each.key != "name"
    ]
    assert {*asked, *told, "model", "hw", "timing.seed", "wandb.mode"} <= {*shown}
    assert shown["batch_size"].split() == ["batch_size:", "3", "#", *asked["batch_size"].comment.split()]
    assert "never two measured points" in asked["max_parallel"].comment  # a comment of two lines
    assert max(map(len, done.stdout.partition("Keys and")[2].splitlines())) <= 120


def test_an_engine_is_known_without_what_it_runs_on():
    """Each command asks for the engine's class, to read its settings; its libraries are for where points run."""
    targets = [load_group("engine", name)["_target_"] for name in names("engine")]
    code = "import sys; from bench.sweep.engine_settings import factory_of; [factory_of(each) for each in sys.argv[1:]]"
    code += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *targets], capture_output=True, text=True, check=True)
    assert not {"jax", "jaxlib", "torch", "scipy", "pandas"} & set(done.stdout.split())

"""The reference of the command line: every command's own ``--help``, and the exit codes."""

from contextlib import redirect_stdout
from io import StringIO

from bench.cli.main import COMMANDS, HELP, main


def page() -> str:
    """``reference/commands.md``."""
    lines = [
        "# Commands",
        "",
        "Keys are given as `key=value`. Names and paths are taken exactly as typed (`~` is the home folder); a list is "
        "`[a,b]`, and an item with a comma is quoted: `['a,b',c]`. This page is what `--help` prints. "
        "`shardbench run` is composed by Hydra: [its keys](configuration.md).",
        "",
        "`--config-dir FOLDER`, before or after a command's keys and as often as needed, makes every command look for "
        "models, chips, engines and sweeps in that folder first; `SHARDBENCH_CONFIG_DIR` names them for a whole "
        'session. `eval "$(shardbench --completion bash)"` completes commands, keys and values.',
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in exit_codes()),
        "| 130 | interrupted; finished points are stored |",
        "",
        "Code 4 is a fault of shardbench: its one line names the error and its place, and "
        "`SHARDBENCH_TRACEBACK=1` shows more.",
        "",
        "## Summary",
        "",
        "| command | what it does |",
        "|---|---|",
        *(f"| [`{name}`](#shardbench-{name}) | {line} |" for name, line in COMMANDS.items()),
        "",
    ]
    for name in COMMANDS:
        lines += [f"## shardbench {name}", "", "```text", help_of(name), "```", ""]
    return "\n".join(lines)


def exit_codes() -> list[tuple[str, str]]:
    """Each code with its meaning, from the last line of ``shardbench --help``."""
    parts = HELP.rpartition("exit codes: ")[2].strip().split(", ")
    return [(code, meaning) for code, _, meaning in (part.partition(" ") for part in parts)]


def help_of(name: str) -> str:
    """What ``shardbench NAME --help`` prints.

    Raises:
        RuntimeError: it did not end well.
    """
    printed = StringIO()
    try:
        with redirect_stdout(printed):
            code = main([name, "--help"])
    except SystemExit as done:  # Hydra's help ends the process
        code = int(done.code or 0)
    if code:
        raise RuntimeError(f"shardbench {name} --help ended with {code}")
    return printed.getvalue().strip("\n")

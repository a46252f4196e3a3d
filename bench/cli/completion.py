"""Completion of commands, keys and values for bash: ``eval "$(shardbench --completion bash)"``."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Final, cast

from bench.cli.args import Command, Key
from bench.cli.values import Boolean, Choice, Kind, ListOf
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.keys import Choice as PointChoice
from engines.core.point import Point

SHELLS: Final = ("bash",)
BASH: Final = """\
_shardbench() {
    local found
    COMPREPLY=()
    while IFS= read -r found; do
        COMPREPLY+=("$found")
    done < <(command shardbench --complete "${COMP_LINE:0:COMP_POINT}" 2>/dev/null </dev/null)
}
complete -o nospace -o default -F _shardbench shardbench"""
GROUPS: Final = ("model", "hw", "runtime", "engine", "sweep", "preset")
"""Keys whose values are the choices of the config group of that name."""
RUN_KEYS: Final = ("results_dir", "sweep_name", "resume", "retry", "print", "sweep", "preset")


def script(shell: str) -> str:
    """The lines that a shell evaluates once. They only call ``shardbench --complete``, whose errors are not shown.

    Raises:
        InvalidRequest: there is no completion for the shell.
    """
    if shell not in SHELLS:
        raise InvalidRequest("--completion", shell, "is not known", f"use one of {', '.join(SHELLS)}")
    return BASH


def candidates(line: str, commands: Sequence[str], modules: Mapping[str, str]) -> list[str]:
    """What may stand where the cursor is, at the end of ``line``: the rest of the word behind its ``=``, if it has one.

    A candidate after which a new word begins ends in a blank.
    """
    words = line.split()[1:]
    current = words.pop() if words and not line[-1].isspace() else ""
    given = [word for word in words if not word.startswith("-")]
    if not given:
        return [f"{each} " for each in (*commands, "--help", "--version") if each.startswith(current)]
    name = given[0]
    if name not in commands:
        return []
    keys = _run_keys() if name == "run" else _keys_of(name, modules)
    key, equals, text = current.partition("=")
    if equals:
        return [f"{each} " for each in _values(key.lstrip("+"), keys) if each.startswith(text)]
    used = {word.partition("=")[0] for word in given}
    verbs = [] if name == "run" or len(given) > 1 else [f"{verb} " for verb in _command(name, modules).VERBS]
    return [each for each in (*verbs, *(f"{key}=" for key in keys if key not in used)) if each.startswith(current)]


def _command(name: str, modules: Mapping[str, str]) -> Command:
    return cast(Command, importlib.import_module(f"bench.cli.commands.{modules.get(name, name)}"))


def _keys_of(name: str, modules: Mapping[str, str]) -> dict[str, Kind]:
    return {key.name: key.takes for key in _command(name, modules).KEYS}


def _run_keys() -> dict[str, Kind]:
    keys: dict[str, Kind] = {name: Key(name, None, "").takes for name in (*GROUPS[:4], *RUN_KEYS)}
    for name, key in Point.schema().items():
        choice = key.about.kind
        keys[name] = Choice(choice.names) if isinstance(choice, PointChoice) else Key(name, None, "").takes
    return keys | {"resume": Boolean(), "print": Choice(("table", "json", "none"))}


def _values(key: str, keys: Mapping[str, Kind]) -> Sequence[str]:
    if key not in keys:
        return ()
    if key in GROUPS:
        from bench.sweep.catalog import names

        try:
            return names(key)
        except ShardbenchError:
            return ()
    if key == "data":
        from engines.published.table import tables

        return list(tables())
    kind = keys[key]
    words = kind.words if isinstance(kind, ListOf) else ()
    kind = kind.kind if isinstance(kind, ListOf) else kind
    return (
        *words,
        *(kind.names if isinstance(kind, Choice) else ("true", "false") if isinstance(kind, Boolean) else ()),
    )

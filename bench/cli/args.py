"""The ``key=value`` arguments of every subcommand but ``run``, whose arguments Hydra reads."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from engines.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a subcommand. Without ``choices`` it accepts any value; a ``required`` key has no default."""

    name: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    required: bool = False


RESULTS_DIR: Final = Key("results_dir", "results", "the store: the folder of the rows")
PRINT: Final = Key("print", "table", "format of the output on stdout", ("table", "json"))


class Command(Protocol):
    """The interface of a module of ``bench/cli/commands``."""

    SUMMARY: str
    """One line for ``shardbench --help``."""
    VERBS: Mapping[str, str]
    """Verbs that may follow the command (``results check``) with their descriptions; empty if it has none."""
    KEYS: Sequence[Key]
    EXAMPLES: Sequence[str]

    def main(self, verb: str | None, settings: Mapping[str, Any]) -> int:
        """Run the command and return the exit code: 0 done, 1 negative result, 3 some points failed.

        Raises:
            ShardbenchError: the request is invalid (exit code 2).
        """
        ...


def check_boolean(name: str, value: object) -> bool:
    """The value of a key that is true or false.

    Raises:
        InvalidRequest: it is neither.
    """
    if not isinstance(value, bool):
        raise InvalidRequest(name, value, "must be true or false", f"use {name}=true or {name}=false")
    return value


def check_integer(name: str, value: object, minimum: int) -> int:
    """The value of a key that is an integer ≥ ``minimum``.

    Raises:
        InvalidRequest: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InvalidRequest(name, value, f"must be an integer ≥ {minimum}", f"use {minimum} or more")
    return value


def parse(
    command: str, words: Sequence[str], keys: Sequence[Key], verbs: Mapping[str, str]
) -> tuple[str | None, dict[str, Any]]:
    """Parse ``[VERB] key=value …`` into the verb and the value of every key. Values are YAML: ``[1,2]``, ``true``.

    Raises:
        InvalidRequest: an argument is not ``key=value``, a key, verb or value is unknown, or a required key is missing.
    """
    verb: str | None = None
    words = list(words)
    if words and "=" not in words[0] and verbs:
        verb = words.pop(0)
        if verb not in verbs:
            raise InvalidRequest("verb", verb, "is not known", f"use one of {', '.join(verbs)}")
    by_name = {key.name: key for key in keys}
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise InvalidRequest("argument", word, "must have the form key=value", f"keys are {', '.join(by_name)}")
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=1)
            remedy = f"did you mean {near[0]}=" if near else f"use one of {', '.join(by_name)}"
            raise InvalidRequest(name, text, f"is not a key of shardbench {command}", remedy)
        settings[name] = _value(name, text)
        choices = by_name[name].choices
        if choices and settings[name] not in (*choices, by_name[name].default):
            raise InvalidRequest(name, text, "is not known", f"use one of {', '.join(choices)}")
    for key in keys:
        if key.required and key.name not in settings:
            raise InvalidRequest(key.name, "", "is required", f"add {key.name}=…, {key.help}")
        settings.setdefault(key.name, key.default)
    return verb, settings


def _value(name: str, text: str) -> Any:
    # OmegaConf reads 1e9 as a number, which plain YAML 1.1 does not.
    from omegaconf import OmegaConf

    if not text:
        return ""
    try:
        content = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
    except Exception:  # any error of the YAML parser
        raise InvalidRequest(
            name, text, "is not valid YAML", "use a number, a word, or a list such as [1,2,4]"
        ) from None
    return content["value"] if isinstance(content, dict) else content


def _default_text(key: Key) -> str:
    """`` (default [a,b])``, with the default as a user would type it; empty if the key's help describes it."""
    if key.required:
        return " (required)"
    if key.default is None:
        return "" if "(default" in key.help else " (default null)"
    if isinstance(key.default, bool):
        return f" (default {str(key.default).lower()})"
    text = f"[{','.join(map(str, key.default))}]" if isinstance(key.default, list) else str(key.default)
    return f" (default {text})"


def help_text(command: str, module: Command) -> str:
    """The text of ``shardbench COMMAND --help``."""
    verbs = " [" + "|".join(module.VERBS) + "]" if module.VERBS else ""
    lines = [f"shardbench {command}{verbs} [key=value ...]", "", f"  {module.SUMMARY}", ""]
    width = max(len(name) for name in [*module.VERBS, *(key.name for key in module.KEYS), ""]) + 2
    if module.VERBS:
        lines += [f"  {verb:<{width}}{meaning}" for verb, meaning in module.VERBS.items()] + [""]
    lines.append("keys:")
    for key in module.KEYS:
        choices = f": {' | '.join(key.choices)}" if key.choices else ""
        lines.append(f"  {key.name:<{width}}{key.help}{choices}{_default_text(key)}")
    lines += ["", "examples:", *(f"  {example}" for example in module.EXAMPLES)]
    return "\n".join(lines)

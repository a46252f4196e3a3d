"""The ``key=value`` arguments of every subcommand but ``run``, whose arguments Hydra reads."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bench.cli.values import Boolean, Choice, FilePath, Integer, Kind, ListOf, Number, StorePath, Text, listed
from engines.core import keys
from engines.core.errors import InvalidRequest
from engines.core.point import Point


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a subcommand, and the kind of its values. A ``required`` key has no default.

    Without a kind a key takes one of ``choices``, ``true`` or ``false`` where its default is one of them, else text.
    """

    name: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    required: bool = False
    kind: Kind | None = None

    @property
    def takes(self) -> Kind:
        """The kind of its values."""
        if self.kind is not None:
            return self.kind
        return Choice(self.choices) if self.choices else Boolean() if isinstance(self.default, bool) else Text()

    def read(self, text: str) -> Any:
        """The value of a text; ``null`` is the default of a key that has none, unless it takes text.

        Raises:
            InvalidRequest: the key does not take it, or it is empty.
        """
        if not text:
            remedy = f"write {self.name}=VALUE" if self.required else f"write {self.name}=VALUE, or leave it out"
            raise InvalidRequest(self.name, text, "is empty", remedy)
        if text == "null" and self.default is None and not self.required and not self.takes.is_text:
            return None
        return self.takes.parse(self.name, text)


RESULTS_DIR: Final = Key(
    "results_dir", "results", "the store: the folder of the rows, or s3://BUCKET/PREFIX or gs://…", kind=StorePath()
)
PRICE: Final = Key(
    "price", "none", "dollars of chips, for cost_usd_per_mtok: one of conf/price, or a file .yaml", kind=FilePath()
)
PRINT: Final = Key("print", "table", "format of the output on stdout", ("table", "json"))


def point_key(name: str) -> Key:
    """A key of a point, which has no value unless the user gives one."""
    about = Point.schema()[name].about
    kinds: dict[type, Kind] = {keys.Integer: Integer(0), keys.Sizes: ListOf(Integer(1)), keys.Number: Number(0.0)}
    kind = Choice(about.kind.names) if isinstance(about.kind, keys.Choice) else kinds.get(type(about.kind), Text())
    return Key(name, None, about.meaning, kind=kind)


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


def parse(
    command: str, words: Sequence[str], keys: Sequence[Key], verbs: Mapping[str, str]
) -> tuple[str | None, dict[str, Any]]:
    """Parse ``[VERB] key=value …`` into the verb and the value of every key.

    Raises:
        InvalidRequest: an argument is not ``key=value``, a key or verb is unknown, a key does not take its value, or a
            required key is missing.
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
        settings[name] = by_name[name].read(text)
    for key in keys:
        if key.required and key.name not in settings:
            raise InvalidRequest(key.name, "", "is required", f"add {key.name}=…, {key.help}")
        settings.setdefault(key.name, key.default)
    return verb, settings


def _default_text(key: Key) -> str:
    """`` (default [a,b])``, with the default as a user would type it; empty if the key's help describes it."""
    if key.required:
        return " (required)"
    if key.default is None:
        return "" if "(default" in key.help or key.takes.is_text else " (default null)"
    if isinstance(key.default, bool):
        return f" (default {str(key.default).lower()})"
    text = listed(key.default) if isinstance(key.default, list) else str(key.default)
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
        choices = f": {' | '.join(key.takes.names)}" if isinstance(key.takes, Choice) else ""
        lines.append(f"  {key.name:<{width}}{key.help}{choices}{_default_text(key)}")
    if any(isinstance(key.takes, ListOf) for key in module.KEYS):
        lines += ["", "A list is [a,b]; an item with a comma is quoted: ['a,b',c]. Names and paths are taken as typed."]
    lines += ["", "examples:", *(f"  {example}" for example in module.EXAMPLES)]
    return "\n".join(lines)

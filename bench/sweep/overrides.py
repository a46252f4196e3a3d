"""The words of ``shardbench run`` as overrides of Hydra: paths and names as typed, lists of choices, clear errors."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from bench.sweep.catalog import names
from bench.sweep.engine_settings import HARNESS, text_settings
from bench.sweep.expand import GROUPS
from bench.sweep.price_words import price_words
from engines.core.errors import InvalidRequest
from engines.core.point import Point

LISTABLE: Final = (*GROUPS, "sweep")
"""Config groups of which a list is several choices: each is composed by itself."""
CONFIG_GROUPS: Final = (*LISTABLE, "preset", "timing", "wandb", "price")
ADDED: Final = ("sweep", "preset")
"""Groups of which a config has no choice until one is added with a +."""
TEXT: Final = {
    "results_dir": False,
    "sweep_name": True,
    "wandb.project": False,
    "wandb.entity": True,
    "model.name": False,
    "hw.name": False,
}
"""Keys whose value is text as typed → whether ``null`` is no text but no value. Engines' settings have theirs."""
_PLAIN: Final = re.compile(r"[A-Za-z][\w./-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Words:
    """The words after ``shardbench run``: Hydra's ``flags`` as typed, and ``overrides`` (``key=value``, ``~key``)."""

    flags: Sequence[str]
    overrides: Sequence[str]

    @classmethod
    def of(cls, words: Sequence[str]) -> "Words":
        """argparse accepts no flag between two overrides, where users may put -m or --cfg job."""
        overrides = [word for word in words if word.startswith("~") or ("=" in word and not word.startswith("-"))]
        return cls([word for word in words if word not in overrides], overrides)


def in_grammar(words: Sequence[str], *, multirun: bool) -> list[str]:
    """Overrides that Hydra reads as the user means them.

    Text of paths and names is quoted, so that ``#``, ``=``, ``,`` and letters beyond ASCII are part of it. A group
    may be chosen with ``+`` or ``++``, or without; lists of choices are ``model=[a,b]``, however they were quoted and
    spaced. A file of prices is several overrides, one a key. With ``multirun``, values are separated by commas
    (``a,b``) in any key.

    Raises:
        InvalidRequest: a word cannot be parsed, a group gets no choice, or several values come without ``multirun``.
    """
    return [each for word in words for each in price_words(word) or [_in_grammar(word, multirun)]]


@cache
def parsed(word: str) -> Override:
    """One override, by Hydra's own parser; a text is parsed once, since its grammar is slow.

    Raises:
        InvalidRequest: it is not in Hydra's grammar.
    """
    try:
        return OverridesParser.create().parse_override(word)
    except (HydraException, RecursionError):
        key, equals, value = word.partition("=")
        raise InvalidRequest(
            key if equals else "argument",
            value if equals else key,
            "cannot be parsed",
            "use key=value, with lists as [1,2] and quotes around special characters",
        ) from None


def name_of(word: str) -> str:
    """The key of an override, without ``+`` or ``~``."""
    return word.partition("=")[0].lstrip("+~")


def choices_of(word: str) -> list[str] | None:
    """The choices of ``model=[a,b]``, each once; None for any other override."""
    if name_of(word) not in LISTABLE or word.startswith("~"):
        return None
    value = parsed(word).value()
    return list(dict.fromkeys(map(str, value))) if isinstance(value, list) else None


def choice(group: str, name: str) -> str:
    """The override that chooses ``name`` of a group; Hydra wants ``+`` for one that is not in the defaults list."""
    return f"{'+' if group == 'sweep' else ''}{group}={_name(name)}"


def quoted(text: str) -> str:
    """The text as one value in Hydra's grammar."""
    return QuotedString(text, Quote.single).with_quotes()


def _in_grammar(word: str, multirun: bool) -> str:
    key, equals, value = word.partition("=")
    name = name_of(word)
    if word.startswith("~") or not equals:
        parsed(word)
        return word
    if name in CONFIG_GROUPS:
        return _group(name, value, multirun)
    nullable = _nullable_text(name)
    if nullable is not None:
        return f"{key}={_text(key, value, nullable, multirun)}"
    override = parsed(word)
    if override.is_sweep_override() and not multirun:
        raise _several(name, value, override)
    return word


def _nullable_text(name: str) -> bool | None:
    """Whether a key of text may be null; None for any other key."""
    if name.startswith("engine.") and name.removeprefix("engine.") not in HARNESS:
        return text_settings().get(name.removeprefix("engine."))
    return TEXT.get(name)


def _text(key: str, value: str, nullable: bool, multirun: bool) -> str:
    """The value as one text, or with ``multirun`` as the texts between its commas, unless Hydra reads quotes there."""
    if not multirun:
        return _one_text(value, nullable)
    try:
        override = parsed(f"{key}={value}")
    except InvalidRequest:
        override = None
    if override is not None and (isinstance(override._value, QuotedString) or "'" in value or '"' in value):
        return value
    return ",".join(_one_text(each, nullable) for each in value.split(","))


def _one_text(value: str, nullable: bool) -> str:
    if nullable and value == "null":
        return value
    return quoted(os.path.expanduser(value) if value == "~" or value.startswith("~/") else value)


def _group(name: str, value: str, multirun: bool) -> str:
    lead = "+" if name in ADDED else ""
    try:
        override = parsed(f"{name}={value}")
    except InvalidRequest:
        if any(each in value for each in "[]{}(),'\"$"):
            raise
        return f"{lead}{name}={quoted(value)}"  # a name such as that of a file: my model, modèle
    if isinstance(override._value, dict):
        return f"{name}={value}"  # keys of the group: model={num_layers:8}
    if override.is_sweep_override():
        if not multirun:
            raise _several(name, value, override)
        if override.value_type is ValueType.SIMPLE_CHOICE_SWEEP and isinstance(override._value, ChoiceSweep):
            return f"{lead}{name}={','.join(_choices(name, item, '') for item in override._value.list)}"
        return f"{lead}{name}={value}"
    return f"{lead}{name}={_choices(name, override._value, value)}"


def _choices(name: str, value: Any, typed: str) -> str:
    """One choice of a group, or a list of them, in the one way that :func:`choices_of` reads."""
    if isinstance(value, list):
        if name not in LISTABLE:
            remedy = f"use one, or -m {name}=a,b for a job each"
            raise InvalidRequest(name, typed or _plain(value), "is a list, and only one can be used", remedy)
        if not value:
            raise InvalidRequest(name, "[]", "is an empty list", "use at least one choice")
        if any(isinstance(item, (list, dict)) for item in value):
            raise InvalidRequest(name, typed or _plain(value), "is a list in a list", "use a list of choices: [a,b]")
        return f"[{','.join(_choices(name, item, '') for item in value)}]"
    text = typed.strip() if typed and not isinstance(value, (str, QuotedString)) else str(_plain(value))
    if value is None or not text:
        raise InvalidRequest(name, typed, "names no choice", f"use one of {', '.join(names(name))}")
    return _name(text)


def _name(text: str) -> str:
    return (
        text if _PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "nan", "inf") else quoted(text)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.text if isinstance(value, QuotedString) else value


def _several(name: str, value: str, override: Override) -> InvalidRequest:
    remedy = "use -m for a job each, or quotes around a text with commas"
    if override.value_type is ValueType.SIMPLE_CHOICE_SWEEP and name in (*Point.schema(), *LISTABLE, "retry"):
        remedy = f"use {name}=[{value}] for a grid" + ("" if name == "retry" else ", or -m for a job each")
    return InvalidRequest(name, value, "is several values", remedy)

"""Values of Python as the words of ``shardbench run``."""

import os
import re
from collections.abc import Mapping
from typing import Any, Final

from bench.sweep.overrides import CONFIG_GROUPS, in_grammar, quoted
from bench.sweep.price_words import OF_CHIPS
from engines.core.errors import InvalidRequest

COMMANDS_OWN: Final = ("print", "hydra")
"""Keys of the command line that mean nothing where rows are returned."""


def words_of(key: str, value: Any) -> list[str]:
    """``key=value`` in Hydra's grammar, with every text quoted: a comma or a bracket in it separates nothing.

    It is one word, and of a file or a mapping of prices several.

    Values are None, booleans, numbers (NumPy's too), texts, paths, and lists, tuples and mappings of them; ``~/`` at
    the beginning of a text is the home folder.

    Raises:
        InvalidRequest: the key is the command line's own, or the value is of another type or names no choice.
    """
    name = key.lstrip("+~")
    if not name or name.partition(".")[0].partition("/")[0] in COMMANDS_OWN:
        raise InvalidRequest(name or "key", value, "means nothing in Python", "leave it out")
    if isinstance(value, Mapping) and OF_CHIPS.startswith(f"{name}."):  # names of chips are no names of Hydra's grammar
        return [word for inner, each in value.items() for word in words_of(f"{key}.{inner}", each)]
    word = f"{key}={_text(name, value)}"
    return in_grammar([word], multirun=False) if name in CONFIG_GROUPS or name.startswith(OF_CHIPS) else [word]


def _text(key: str, value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # NumPy's numbers and arrays
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return quoted(os.path.expanduser(value) if value == "~" or value.startswith("~/") else value)
    if isinstance(value, (list, tuple, range)):
        return "[" + ",".join(_text(key, each) for each in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_inner(key, name)}:{_text(key, each)}" for name, each in value.items()) + "}"
    kind = type(value).__name__
    raise InvalidRequest(key, kind, "is no value of a key", "use a number, a text, None, or a list or mapping of them")


def _inner(key: str, name: object) -> str:
    """The key of a mapping, which Hydra's grammar takes without quotes alone.

    Raises:
        InvalidRequest: no key of ours has such a name.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise InvalidRequest(f"{key}.{name}", "", "is not the name of a key", "use letters, digits and _")
    return name

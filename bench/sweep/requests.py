"""From the overrides of one job to its request, and from a multirun's overrides to its jobs."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from omegaconf import DictConfig

from bench.sweep.catalog import load_group
from bench.sweep.compose_errors import explained, unknown_key
from bench.sweep.composer import Composer
from bench.sweep.expand import GROUPS, OPTIONS, Request, merged, request_from
from bench.sweep.hw_here import hw_here
from bench.sweep.overrides import LISTABLE, choice, choices_of, in_grammar, name_of, parsed
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.point import Point

KNOWN: Final = frozenset({*Point.schema(), *GROUPS, *OPTIONS, "points", "sweep", "preset", "hydra"})
_CARRIED: Final = "++group_lists."
"""Before a group whose value Hydra cannot compose (a list of choices, ``here``) on its way through Hydra."""
_CARRIED_SETTING: Final = "++group_settings."
"""Before a setting of some of the engines of such a list."""


def requests_of(composer: Composer, words: Sequence[str]) -> list[Request]:
    """The requests of one job: every combination of its lists of choices, each composed by itself.

    So each recipe of ``sweep=[a,b]`` has its own settings, ``model.num_layers=8`` changes every model of a list, and
    ``engine.trace_dir=…`` every engine of a list that has this setting.
    There is one request unless recipes differ in the settings of the command, such as ``sweep_name``.

    Raises:
        ShardbenchError: a config cannot be composed, or is invalid.
    """
    lists = {word: choices for word in words if (choices := choices_of(word)) is not None}
    engines = next((choices for word, choices in lists.items() if name_of(word) == "engine"), ())
    given = {name_of(word) for word in words if not word.startswith("~")} & {*Point.schema(), *GROUPS}
    requests = []
    for chosen in itertools.product(*lists.values()):
        singles = dict(zip(lists, chosen, strict=True))
        engine = next((each for word, each in singles.items() if name_of(word) == "engine"), None)
        suited = words if engine is None else [word for word in words if not _is_of_others(word, engine, engines)]
        job = [_single(word, singles.get(word)) for word in suited]
        config = composer.content(job)
        _check_added(job)
        requests.append(request_from(config, given, _Choices(composer, job, config)))
    return merged(requests)


def jobs_of(composer: Composer, words: Sequence[str], config: DictConfig) -> list[list[str]]:
    """The overrides of every job of a multirun with Hydra's own sweeper.

    Args:
        composer: knows the choices of ``glob(*)``.
        words: the overrides in Hydra's grammar.
        config: the multirun's composed config, with its ``hydra`` node.

    Raises:
        ShardbenchError: the sweeper does not support an override, or an override cannot be parsed.
    """
    about_hydra = [word for word in words if parsed(word).is_hydra_override()]
    params = config.hydra.sweeper.params or {}
    swept = in_grammar([f"{key}={value}" for key, value in params.items()], multirun=True)
    swept += [word for word in words if word not in about_hydra]
    with explained(words):
        overrides = OverridesParser.create(config_loader=composer.loader).parse_overrides(swept)
        jobs = BasicSweeper.split_arguments(overrides, None)[0]
    if not jobs:
        empty = next(each for each in overrides if each.is_sweep_override() and not list(each.sweep_string_iterator()))
        raise InvalidRequest(
            name_of(str(empty.input_line)), empty.get_value_string(), "stands for no value", "use at least one value"
        )
    return [[*about_hydra, *job] for job in jobs]


def carried(words: Sequence[str]) -> list[str]:
    """The overrides as Hydra can compose them, with lists of choices under a key of their own; see :func:`unpacked`."""
    several = any(name_of(word) == "engine" and _has_list(word) for word in words)
    return [
        f"{_CARRIED}{word.lstrip('+')}"
        if _has_list(word)
        else f"{_CARRIED_SETTING}{word}"
        if several and word.startswith("engine.")
        else word
        for word in words
    ]


def unpacked(words: Sequence[str]) -> list[str]:
    """The overrides of a job as they were before :func:`carried`."""
    found = []
    for word in words:
        plain = word.removeprefix(_CARRIED_SETTING).removeprefix(_CARRIED)
        found.append(f"+{plain}" if plain != word and plain.startswith("sweep=") else plain)
    return found


class _Choices:
    """The choices that the points of a recipe name, with the keys changed as in the config itself."""

    def __init__(self, composer: Composer, words: Sequence[str], config: Mapping[str, Any]) -> None:
        self._composer = composer
        self._words = words
        self._config = config
        self._found: dict[tuple[str, str], Mapping[str, Any]] = {}

    def __call__(self, group: str, name: str) -> Mapping[str, Any]:
        if (group, name) not in self._found:
            self._found[group, name] = self._load(group, name)
        return self._found[group, name]

    def _load(self, group: str, name: str) -> Mapping[str, Any]:
        name = hw_here() if (group, name) == ("hw", "here") else name
        file = load_group(group, name)
        changes = [word for word in self._words if name_of(word).startswith(f"{group}.")]
        if not changes and not self._is_changed(group):
            return file
        others = [word for word in self._words if name_of(word) != group]
        if group == "engine":
            main = self._config["engine"]["name"]
            others = [word for word in others if not _is_of_others(word, name, [main])]
        content: Any = self._composer.content([*others, choice(group, name)])[group]
        return dict(content)

    def _is_changed(self, group: str) -> bool:
        content = self._config[group]
        try:
            return bool(content != load_group(group, content["name"]))
        except ShardbenchError:
            return False  # a file whose name isn't its choice's


def _is_of_others(word: str, engine: str, engines: Sequence[str]) -> bool:
    """Whether a word gives a setting that ``engine`` has not, but another of ``engines``."""
    group, _, key = name_of(word).partition(".")
    if group != "engine" or not key or word.startswith(("+", "~")):
        return False
    setting = key.partition(".")[0]
    return setting not in load_group("engine", engine) and any(
        setting in load_group("engine", each) for each in engines
    )


def _single(word: str, chosen: str | None) -> str:
    name = name_of(word)
    if chosen is None:
        if name != "hw" or word.startswith("~") or parsed(word).value() != "here":
            return word
        chosen = "here"
    return choice(name, hw_here() if (name, chosen) == ("hw", "here") else chosen)


def _has_list(word: str) -> bool:
    if name_of(word) not in LISTABLE or word.startswith("~"):
        return False
    value = parsed(word).value()
    items = value.list if isinstance(value, ChoiceSweep) else [value]
    return any(isinstance(item, list) or (name_of(word) == "hw" and item == "here") for item in items)


def _check_added(words: Sequence[str]) -> None:
    """Refuse a key that ``+`` adds and nothing reads."""
    for word in words:
        name = name_of(word).partition(".")[0]
        if word.startswith("+") and name not in KNOWN and "@" not in name and "/" not in name:
            raise unknown_key(name_of(word), words)

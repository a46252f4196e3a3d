"""Which model and chip of ``conf/`` a file means: by its own name, or by the user's key."""

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from bench.importers.known import Known, by_user
from bench.sweep.catalog import hw_of, load_model, names
from engines.core.errors import InvalidRequest

SIZE: Final = re.compile(r"(?i)(?:^|[-_/ .])(\d+(?:\.\d+)?)b(?=$|[-_/ .])")
"""Billions of parameters in a model's name: ``8b`` of ``Llama-3-8B``."""
SAME_SIZE: Final = 1.5
"""Most that the parameters of a model differ from those in a name that stands for it (7B models have 6.7 to 8.5)."""


class Choices:
    """The choices of one command.

    The user's ``model`` and ``hw`` stand for one name of the files, or map names to choices. Where a file's own name is
    a choice, the user's must be the same.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._given = {group: _given(group, settings[group]) for group in ("model", "hw")}
        self._stands: dict[str, tuple[str, str]] = {}

    def choose(self, group: str, named: Known | None, where: str) -> Known:
        """The choice of ``conf/GROUP`` for a file's name, with its origin.

        Raises:
            InvalidRequest: neither says which, or the user's key contradicts the file's name.
        """
        own = None if named is None else _own_choice(group, str(named.value))
        given = self._given[group]
        if isinstance(given, Mapping):
            given = given.get(str(named.value)) if named is not None else None
        if given is None:
            if own is not None and named is not None:
                return Known(own, named.origin)
            problem = (
                f"{where} has {named.value}, which is not in conf/{group}" if named else f"{where} does not state it"
            )
            raise InvalidRequest(group, "", problem, f"add {group}=…, one of {', '.join(names(group))}")
        if not isinstance(given, str):
            raise InvalidRequest(group, given, "must be one name", f"use one of {', '.join(names(group))}")
        if named is not None:
            self._check(group, given, own, str(named.value), where)
        return by_user(group, given)

    def _check(self, group: str, given: str, own: str | None, named: str, where: str) -> None:
        remedy = f"omit {group}, or import the files of each {group} on their own"
        if own is not None and given.partition("+")[0] != own:
            raise InvalidRequest(group, given, f"{where} has {named}, which is {own}", remedy)
        if group == "model":
            size, params = SIZE.findall(named), load_model(given).published_params
            if len(size) == 1 and not 1 / SAME_SIZE <= params / (float(size[0]) * 1e9) <= SAME_SIZE:
                problem = f"has {params / 1e9:.3g}e9 parameters and {where} has {named}"
                raise InvalidRequest(group, given, problem, remedy)
        near = _near_chips(named) if group == "hw" and own is None else []
        if near and given not in near:
            raise InvalidRequest(group, given, f"{where} has {named}", f"use hw={' or '.join(near)}")
        if isinstance(self._given[group], Mapping):
            return
        stands, first = self._stands.setdefault(group, (named, where))
        if stands != named:
            raise InvalidRequest(
                group,
                given,
                f"stands for {stands} of {first}, and {where} has {named}",
                f"use {group}={{'{stands}': …, '{named}': …}}, or import them on their own",
            )


def _given(group: str, value: Any) -> Any:
    """What the user gave: a name, or a mapping that was typed as ``{NAME: CHOICE, NAME: CHOICE}``."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(each, str) for pair in found.items() for each in pair):
        raise InvalidRequest(group, value, "is no mapping of names", f"write {group}={{'NAME IN THE FILE': CHOICE}}")
    return found


def _own_choice(group: str, named: str) -> str | None:
    """The choice that a file's name is: what a driver calls a chip, or the last part of a name."""
    found = hw_of(named) if group == "hw" else None
    found = found or named.rstrip("/").rpartition("/")[2].lower()
    return found if found in names(group) else None


def _near_chips(named: str) -> list[str]:
    """The choices of ``conf/hw`` that share the name of a generation (``h100`` of ``h100-dgxc``)."""
    parts = {part for part in re.split(r"[^a-z0-9]+", named.lower()) if re.fullmatch(r"[a-z]+\d+[a-z]*", part)}
    return [choice for choice in names("hw") if parts & set(choice.split("-"))]

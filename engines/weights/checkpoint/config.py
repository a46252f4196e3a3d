"""A checkpoint's ``config.json``, read key by key; which keys were read is remembered, so that none is overlooked."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.files import CONFIG, KEY, read_json

GELU: Final = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
"""Activation in the config → in :class:`Model`: exact, or by tanh, however its constants are written."""
GATED: Final = {"silu": "swiglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu", "gelu_fast": "geglu"}
"""The same of a feed-forward with two inputs."""
LARGEST: Final = 1 << 40
"""No size in a config is larger; what is counted from sizes then stays a finite number."""
QUANTIZED: Final = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
"""Files beside a config by which other programs say that the weights are quantized."""
SHOWN: Final = 80
"""Characters of a value that an error shows."""


@dataclass(frozen=True, slots=True)
class Config:
    """Values by key. Each reader rejects a value of another type; ``None`` counts as absent.

    ``path`` is what the user gave, under the key ``asked`` of the command or engine. ``read`` collects the keys that
    were looked at, ``unused`` those of them whose value changes nothing in this config.
    """

    path: Path
    content: Mapping[str, Any]
    asked: str = KEY
    read: set[str] = field(default_factory=set)
    unused: set[str] = field(default_factory=set)

    @property
    def model_type(self) -> str:
        """The family's name."""
        return str(self._value("model_type", None, (str,), "a string"))

    def integer(self, key: str, default: int | None = None) -> int:
        """An integer ≥ 1."""
        value = int(self._value(key, default, (int,), "an integer"))
        if not 1 <= value <= LARGEST:
            raise self.wrong(key, "must be an integer ≥ 1" if value < 1 else f"must be at most {LARGEST}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number > 0."""
        value = self._value(key, default, (int, float), "a number")
        if not 0 < value <= LARGEST or math.isnan(value):
            raise self.wrong(key, f"must be a number > 0 and at most {LARGEST}")
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        """An integer ≥ 0."""
        return 0 if self.content.get(key) is not None and same(self.content[key], [0]) else self.integer(key, default)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        return bool(self._value(key, default, (bool,), "true or false"))

    def word(self, key: str, allowed: Mapping[str, str], default: str) -> str:
        """``allowed[value]``; the value must be one of its keys."""
        value = self._value(key, default, (str,), "a string")
        if value not in allowed:
            raise self.wrong(key, f"must be one of {', '.join(allowed)}")
        return allowed[value]

    def head_dim(self, width: str = "hidden_size", heads: str = "num_attention_heads") -> int:
        """The width over the number of heads, which must divide it."""
        size, count = self.integer(width), self.integer(heads)
        if size % count:
            raise self.wrong(heads, f"must divide {width}={size}")
        return size // count

    def either(self, key: str, other: str) -> str:
        """Whichever of two names of a key the config has, ``key`` where it has none; both must say the same."""
        if self.gives(key) and self.gives(other):
            self.must_be(other, self.content[key], means=f"{key} says {short(self.content[key])}")
        return other if self.gives(other) and not self.gives(key) else key

    def require(self, *keys: str) -> None:
        """Check that ``keys`` are given: transformers has defaults for them that no released config relies on."""
        for key in keys:
            self._value(key, None, (int, float), "a number")

    def must_be(self, key: str, *allowed: Any, means: str) -> None:
        """Check that ``key`` is absent or one of ``allowed``; another value has a meaning that is not supported."""
        self.read.add(key)
        if self.content.get(key) is not None and not same(self.content[key], allowed):
            raise self.wrong(key, f"is not supported: {means}")

    def ignore(self, *keys: str) -> None:
        """Note that the values of ``keys`` change nothing in this config."""
        self.read.update(keys)
        self.unused.update(keys)

    def gives(self, key: str) -> bool:
        """Whether the key stands in the config with a value other than null."""
        self.read.add(key)
        return self.content.get(key) is not None

    def wrong(self, key: str, problem: str) -> InvalidRequest:
        """The error for the value of ``key``."""
        return self.refused(f"{CONFIG} has {key}={short(self.content.get(key))}, which {problem}")

    def refused(self, problem: str, remedy: str = "give another checkpoint") -> InvalidRequest:
        """The error for the whole config."""
        return InvalidRequest(self.asked, self.path, problem, remedy)

    def _value(self, key: str, default: Any, kinds: tuple[type, ...], called: str) -> Any:
        self.read.add(key)
        value = self.content.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.refused(f"{CONFIG} has no {key}")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.wrong(key, f"must be {called}")
        return value


def read_config(path: Path, asked: str = KEY) -> Config:
    """The config of the checkpoint in the folder ``path``, or the file ``path`` itself.

    Raises:
        InvalidRequest: the folder or the file is missing, or holds no config.
    """
    folder, name = (path.parent, path.name) if path.is_file() else (path, CONFIG)
    if not folder.is_dir():
        raise InvalidRequest(asked, path, "is not a folder", f"give a folder with {CONFIG} and safetensors")
    config = Config(path, read_json(folder, name, asked), asked)
    for beside in QUANTIZED:
        if (folder / beside).is_file():
            raise config.refused(
                f"has {beside}: its weights are quantized", "give the checkpoint that it was made from"
            )
    return config


def same(value: Any, allowed: Collection[Any]) -> bool:
    """Whether ``value`` is one of ``allowed``: 1 is 1.0, but neither is true."""
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in allowed)


def short(value: Any) -> str:
    """A value in one line, cut where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

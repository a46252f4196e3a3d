"""A checkpoint's ``config.json``, read key by key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.files import CONFIG, KEY, read_json

GELU: Final = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
"""Activation in the config → in :class:`Model`: exact, or by tanh, however its constants are written."""


@dataclass(frozen=True, slots=True)
class Config:
    """Values by key. Each reader rejects a value of another type; ``None`` counts as absent."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def model_type(self) -> str:
        """The architecture's name."""
        return str(self.content.get("model_type"))

    def integer(self, key: str, default: int | None = None) -> int:
        """An integer ≥ 1."""
        value = int(self._value(key, default, (int,), "an integer"))
        if value < 1:
            raise self.wrong(key, "must be an integer ≥ 1")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        return float(self._value(key, default, (int, float), "a number"))

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        return bool(self._value(key, default, (bool,), "true or false"))

    def word(self, key: str, allowed: Mapping[str, str], default: str) -> str:
        """``allowed[value]``; the value must be one of its keys."""
        value = self._value(key, default, (str,), "a string")
        if value not in allowed:
            raise self.wrong(key, f"must be one of {', '.join(allowed)}")
        return allowed[value]

    def reject(self, keys: Sequence[str]) -> None:
        """Reject a config in which one of ``keys`` is set: it changes the model in a way that is not supported."""
        for key in keys:
            if self.content.get(key):
                raise self.wrong(key, "is not supported")

    def wrong(self, key: str, problem: str) -> InvalidRequest:
        """The error for the value of ``key``."""
        shown = f"{CONFIG} has {key}={self.content.get(key)}, which {problem}"
        return InvalidRequest(KEY, self.folder, shown, "give another checkpoint")

    def _value(self, key: str, default: Any, kinds: tuple[type, ...], called: str) -> Any:
        value = self.content.get(key)
        if value is None:
            value = default
        if value is None:
            raise InvalidRequest(KEY, self.folder, f"{CONFIG} has no {key}", "give another checkpoint")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.wrong(key, f"must be {called}")
        return value


def read_config(folder: Path) -> Config:
    """The config of the checkpoint in ``folder``.

    Raises:
        InvalidRequest: the folder or the file is missing, or holds no config.
    """
    if not folder.is_dir():
        raise InvalidRequest(KEY, folder, "is not a folder", f"give a folder with {CONFIG} and safetensors")
    config = Config(folder, read_json(folder, CONFIG))
    config.reject(["quantization_config"])
    return config


SCALINGS: Final = ("default", "linear", "llama3")
"""Supported scalings of rotary embeddings."""


def rotary(config: Config, *, base_key: str = "rope_theta", share_key: str | None = None) -> dict[str, Any]:
    """The rotary fields of :class:`engines.core.model.Model`, under the config's own keys or as transformers 5 has it.

    ``share_key`` is the key of the share of a head that is rotated, where a family has one; its default is a quarter.

    Raises:
        InvalidRequest: the angles are scaled in a way that is not supported.
    """
    found = {"rope_theta": config.content.get(base_key), "partial_rotary_factor": config.content.get(share_key or "")}
    for key in ("rope_scaling", "rope_parameters"):
        given = config.content.get(key)
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise config.wrong(key, "must be a mapping")
        found |= {name: value for name, value in given.items() if value is not None}
        if _scaling(found) not in SCALINGS:
            raise config.wrong(key, f"must have a scaling of {' or '.join(SCALINGS)}")
    read = Config(config.folder, found)
    fields: dict[str, Any] = {"rotary_base": read.number("rope_theta", 10000.0)}
    if _scaling(found) != "default":
        fields["rotary_factor"] = read.number("factor")
    if _scaling(found) == "llama3":
        fields["rotary_low_factor"] = read.number("low_freq_factor")
        fields["rotary_high_factor"] = read.number("high_freq_factor")
        fields["rotary_original_positions"] = read.integer("original_max_position_embeddings")
    if share_key is not None:
        head_dim = config.integer("hidden_size") // config.integer("num_attention_heads")
        fields["rotary_dim"] = int(head_dim * read.number("partial_rotary_factor", 0.25))
    return fields


def _scaling(found: Mapping[str, Any]) -> str:
    return str(found.get("rope_type", found.get("type", "default")))

"""Rotary positions in a config: old keys, or ``rope_parameters`` as transformers 5 writes it."""

import math
from collections.abc import Mapping
from typing import Any, Final

from engines.weights.checkpoint.config import LARGEST, Config, same, short
from engines.weights.checkpoint.files import CONFIG

SCALINGS: Final[Mapping[str, frozenset[str]]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "dynamic": frozenset({"factor"}),
    "yarn": frozenset(
        {
            "factor",
            "original_max_position_embeddings",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "attention_factor",
            "truncate",
        }
    ),
    "longrope": frozenset(
        {"factor", "original_max_position_embeddings", "short_factor", "long_factor", "attention_factor"}
    ),
}
"""Supported scaling → the keys that it reads."""
OLD_SCALINGS: Final = {"su": "longrope"}
ORIGINAL: Final = "original_max_position_embeddings"
KINDS: Final = frozenset({"type", "rope_type"})
SHARE: Final = "partial_rotary_factor"
BASE: Final = "rope_theta"


def rotary(
    config: Config,
    *,
    base_key: str = BASE,
    share_key: str = SHARE,
    share: float | None = None,
    head_dim: int | None = None,
    base: float = 10000.0,
    original: int | None = None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The rotary fields of :class:`engines.core.model.Model`.

    ``base_key`` and ``share_key`` are the family's own keys of the base and of the share of a head that is rotated;
    ``share`` is that share's default, ``None`` where the whole head must be rotated; ``base`` the base's default.
    ``original`` are the positions before they were stretched, where the config has them beside the mapping, which is
    ``given`` where it is a part of the config's.

    Raises:
        InvalidRequest: the angles are scaled in a way that is not supported, or two keys contradict each other.
    """
    mapping_key, found = _mapping(config)
    given = dict(found if given is None else given)
    for key, name in ((base_key, BASE), (share_key, SHARE)):
        if config.gives(key):
            if given.get(name) is not None and not same(config.content[key], [given[name]]):
                raise config.wrong(key, f"is {short(given[name])} in {mapping_key}")
            given[name] = config.content[key]
    for key in {BASE, SHARE} - {base_key, share_key}:
        config.must_be(key, means=f"this family has {base_key if key == BASE else share_key}")
    scaling = _scaling(config, mapping_key, given)
    for key in given:
        if key not in {*SCALINGS[scaling], *KINDS, BASE, SHARE} and given[key] is not None:
            raise config.wrong(mapping_key, f"has {key}={short(given[key])}, which is not supported with {scaling}")
    read = Config(config.path, given, config.asked)
    fields: dict[str, Any] = {"rotary_base": read.number(BASE, base)}
    fields |= _stretched(config, read, mapping_key, scaling, original)
    if share is None:
        read.must_be(SHARE, 1, means="rotary positions on a part of each head")
    else:
        part = read.number(SHARE, share)
        if part > 1:
            raise read.wrong(SHARE, "must be at most 1")
        fields["rotary_dim"] = int((head_dim or config.head_dim()) * part)
    return fields


def mscale(factor: float, multiplier: float = 1.0) -> float:
    """By what YaRN multiplies cosine and sine: 0.1·m·ln(s) + 1 (Peng et al. 2023, equation 22)."""
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1.0


def _stretched(config: Config, read: Config, key: str, scaling: str, original: int | None) -> dict[str, Any]:
    """The fields about scaling; ``read`` is the mapping under ``key``."""
    if scaling == "default":
        return {}
    if scaling == "longrope":
        return _longrope(config, read, key, original)
    fields: dict[str, Any] = {"rotary_factor": read.number("factor")}
    if scaling == "llama3":
        fields["rotary_low_factor"] = read.number("low_freq_factor")
        fields["rotary_high_factor"] = read.number("high_freq_factor")
        fields["rotary_original_positions"] = read.integer(ORIGINAL)
        if fields["rotary_low_factor"] >= fields["rotary_high_factor"]:
            raise config.wrong(key, "must have low_freq_factor < high_freq_factor")
    if scaling == "dynamic":
        fields["rotary_scaling"] = "dynamic"
        fields["rotary_original_positions"] = config.integer("max_position_embeddings")
    if scaling == "yarn":
        by_size = read.gives("mscale") and read.gives("mscale_all_dim")
        scale = mscale(fields["rotary_factor"])
        if by_size:
            both = (read.number("mscale"), read.number("mscale_all_dim"))
            scale = mscale(fields["rotary_factor"], both[0]) / mscale(fields["rotary_factor"], both[1])
        fields |= {
            "rotary_scaling": "yarn",
            "rotary_original_positions": read.integer(ORIGINAL, original or config.integer("max_position_embeddings")),
            "rotary_high_factor": read.number("beta_fast", 32.0),
            "rotary_low_factor": read.number("beta_slow", 1.0),
            "rotary_truncated": read.flag("truncate", True),
            "rotary_attention_factor": read.number("attention_factor", scale),
        }
        if fields["rotary_low_factor"] > fields["rotary_high_factor"]:
            raise config.wrong(key, "must have beta_slow ≤ beta_fast")
    return fields


def _longrope(config: Config, read: Config, key: str, original: int | None) -> dict[str, Any]:
    positions = original or read.integer(ORIGINAL)
    if read.gives(ORIGINAL) and read.integer(ORIGINAL) != positions:
        raise config.wrong(ORIGINAL, f"is {read.integer(ORIGINAL)} in {key}")
    factor = read.number("factor", config.integer("max_position_embeddings") / positions)
    scale = 1.0 if factor <= 1 or positions < 2 else math.sqrt(1 + math.log(factor) / math.log(positions))
    return {
        "rotary_scaling": "long",
        "rotary_original_positions": positions,
        "rotary_short_factors": _divisors(config, read, key, "short_factor"),
        "rotary_long_factors": _divisors(config, read, key, "long_factor"),
        "rotary_attention_factor": read.number("attention_factor", scale),
    }


def _divisors(config: Config, read: Config, key: str, name: str) -> tuple[float, ...]:
    given = read.content.get(name)
    if not isinstance(given, list) or not all(_is_divisor(each) for each in given):
        raise config.wrong(key, f"must have {name}, a list of numbers > 0")
    return tuple(float(each) for each in given)


def _is_divisor(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LARGEST


def _mapping(config: Config) -> tuple[str, dict[str, Any]]:
    """``rope_scaling`` or ``rope_parameters``, whichever the config has, by its name."""
    found = [key for key in ("rope_scaling", "rope_parameters") if config.gives(key)]
    if len(found) == 2:
        raise config.refused(f"{CONFIG} has both rope_scaling and rope_parameters", "delete the one that is not meant")
    if not found:
        return "rope_parameters", {}
    given = config.content[found[0]]
    if not isinstance(given, Mapping):
        raise config.wrong(found[0], "must be a mapping")
    return found[0], dict(given)


def _scaling(config: Config, key: str, given: Mapping[str, Any]) -> str:
    stated = {str(given[kind]) for kind in KINDS if given.get(kind) is not None} or {"default"}
    named = {OLD_SCALINGS.get(each, each) for each in stated}
    if len(named) > 1 or not named <= set(SCALINGS):
        raise config.wrong(
            key, f"is a scaling of type {' and '.join(sorted(named))}; {', '.join(SCALINGS)} are supported"
        )
    return named.pop()

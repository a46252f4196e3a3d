"""Rotary positions in a config: old keys, or ``rope_parameters`` as transformers 5 writes it."""

from collections.abc import Mapping
from typing import Any, Final

from engines.weights.checkpoint.config import Config, same, short
from engines.weights.checkpoint.files import CONFIG

SCALINGS: Final[Mapping[str, frozenset[str]]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
}
"""Supported scaling → the keys that it reads."""
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
) -> dict[str, Any]:
    """The rotary fields of :class:`engines.core.model.Model`.

    ``base_key`` and ``share_key`` are the family's own keys of the base and of the share of a head that is rotated;
    ``share`` is that share's default, ``None`` where the whole head must be rotated.

    Raises:
        InvalidRequest: the angles are scaled in a way that is not supported, or two keys contradict each other.
    """
    mapping_key, given = _mapping(config)
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
    fields: dict[str, Any] = {"rotary_base": read.number(BASE, 10000.0)}
    if scaling != "default":
        fields["rotary_factor"] = read.number("factor")
    if scaling == "llama3":
        fields["rotary_low_factor"] = read.number("low_freq_factor")
        fields["rotary_high_factor"] = read.number("high_freq_factor")
        fields["rotary_original_positions"] = read.integer("original_max_position_embeddings")
        if fields["rotary_low_factor"] >= fields["rotary_high_factor"]:
            raise config.wrong(mapping_key, "must have low_freq_factor < high_freq_factor")
    if share is None:
        read.must_be(SHARE, 1, means="rotary positions on a part of each head")
    else:
        part = read.number(SHARE, share)
        if part > 1:
            raise read.wrong(SHARE, "must be at most 1")
        fields["rotary_dim"] = int((head_dim or config.head_dim()) * part)
    return fields


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
    named = {str(given[kind]) for kind in KINDS if given.get(kind) is not None} or {"default"}
    if len(named) > 1 or not named <= set(SCALINGS):
        raise config.wrong(
            key, f"is a scaling of type {' and '.join(sorted(named))}; {', '.join(SCALINGS)} are supported"
        )
    return named.pop()

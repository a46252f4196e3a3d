"""A runtime: the software that runs a model on a chip, what it cannot do, and what it wastes.

A chip's figures say what the hardware can do. A runtime's constants say what its kernels, launches, collectives and
buffers make of that; they are the same on every chip unless it says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Self

from engines.core.chip import ChipKind
from engines.core.conf import conf_dir
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.typed import check_types, types_of

if TYPE_CHECKING:
    from engines.core.point import Point

AUTO: Final = "auto"
"""The name with which a point leaves its runtime to the engine."""
BEST: Final = "best"
"""The runtime of a prediction that states none: what a well-made stack reaches."""
_REMEDY: Final = "compare it with conf/runtime/best.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One constant of a runtime, and on what evidence.

    ``prior`` is its value before any row was seen, for the reason in ``source``. ``set_by`` has each group of rows and
    its share of what the rows say of the constant; it is empty where none does, and the value is the prior's or
    another runtime's. ``uncertainty`` is the standard deviation of its logarithm.
    """

    value: float
    prior: float | None = None
    uncertainty: float | None = None
    source: str = ""
    set_by: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_config(cls, key: str, content: object) -> Self:
        """A constant as its file has it: a mapping, or the value alone.

        Raises:
            InvalidRequest: it is neither.
        """
        stated = content if isinstance(content, Mapping) else {"value": content}
        check_types(f"{key}.", stated, types_of(cls), _REMEDY)
        try:
            return cls(**stated)
        except TypeError as error:
            raise InvalidRequest(key, content, str(error).replace("Constant.__init__() ", ""), _REMEDY) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a runtime can run; None is no limit.

    ``kinds`` of chips, of which ``chips`` alone where they are listed, and none of ``except_chips``. Without
    ``grouped_query`` every query head has a key/value head of its own. Without ``pipeline`` one stage has all layers,
    and without ``several_nodes`` the chips are of one node.
    """

    kinds: tuple[ChipKind, ...]
    chips: tuple[str, ...] | None = None
    except_chips: tuple[str, ...] = ()
    grouped_query: bool = True
    positions: tuple[str, ...] | None = None
    weight_dtypes: tuple[str, ...] | None = None
    act_dtypes: tuple[str, ...] | None = None
    kv_dtypes: tuple[str, ...] | None = None
    pipeline: bool = True
    several_nodes: bool = True

    def __post_init__(self) -> None:
        for name, value in ((name, getattr(self, name)) for name in self.__slots__):
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """One runtime; every field is a key of ``conf/runtime/*.yaml``.

    ``constants`` are what it wastes on every chip; ``on_chip`` replaces, for a chip by its name, any constant of the
    chip or of the runtime with what was measured there. Which constants there are, and what they mean, the engine that
    reads them says (:mod:`engines.analytic.constants`).
    """

    name: str
    limits: Limits
    constants: Mapping[str, Constant] = field(default_factory=dict)
    on_chip: Mapping[str, Mapping[str, Constant]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        # The mappings cannot be hashed; equality still compares every constant.
        return hash((self.name, self.limits))

    @classmethod
    def from_config(cls, content: Mapping[str, Any]) -> Self:
        """The runtime of a configuration file's plain values.

        Raises:
            InvalidRequest: a key is missing, unknown or wrong.
        """
        read_below = {"constants", "on_chip"}
        check_types("runtime.", content, {k: v for k, v in types_of(cls).items() if k not in read_below}, _REMEDY)
        limits = content.get("limits")
        if isinstance(limits, Mapping):
            check_types("runtime.limits.", limits, types_of(Limits), _REMEDY)
        try:
            read = {
                **content,
                "limits": Limits(**(limits or {})),
                "constants": _constants("runtime.constants", content.get("constants")),
                "on_chip": {
                    chip: _constants(f"runtime.on_chip.{chip}", found)
                    for chip, found in _mapping("runtime.on_chip", content.get("on_chip")).items()
                },
                "sources": content.get("sources") or {},
            }
            return cls(**read)
        except TypeError as error:
            reason = str(error).replace("Runtime.__init__() ", "").replace("Limits.__init__() ", "limits: ")
            raise InvalidRequest("runtime", content.get("name"), reason, _REMEDY) from None

    def values(self, chip: str) -> dict[str, float]:
        """Constant → value on the chip of that name: those of every chip, replaced by those of that one."""
        found = {**self.constants, **self.on_chip.get(chip, {})}
        return {name: constant.value for name, constant in found.items()}

    def check(self, point: "Point") -> None:
        """Check that the runtime can run a point.

        Raises:
            InvalidRequest: it cannot; names the key that is beyond its limits.
        """
        self._check_chip(point)
        limits, model = self.limits, point.model
        if not limits.grouped_query and model.num_kv_heads != model.num_heads:
            raise InvalidRequest(
                "runtime",
                self.name,
                f"has no grouped-query attention, and model={model.name} has {model.num_kv_heads} key/value heads for "
                f"{model.num_heads} query heads",
                "use another runtime, such as runtime=best, or a model with as many of both",
            )
        if limits.positions is not None and model.position not in limits.positions:
            raise InvalidRequest(
                "runtime",
                self.name,
                f"has no {model.position} positions, which model={model.name} has",
                f"use another runtime, such as runtime=best, or a model with {' or '.join(limits.positions)} positions",
            )
        for key, allowed in (
            ("weight_dtype", limits.weight_dtypes),
            ("act_dtype", limits.act_dtypes),
            ("kv_dtype", limits.kv_dtypes),
        ):
            if allowed is not None and getattr(point, key) not in allowed:
                raise InvalidRequest(
                    key, getattr(point, key), f"is not a format of runtime={self.name}", f"use {_or(allowed)}"
                )
        if not limits.pipeline and point.pipeline_degree > 1:
            raise InvalidRequest(
                "pipeline_parallel",
                point.pipeline_degree,
                f"is more than one stage, and runtime={self.name} has no pipeline",
                "use pipeline_parallel=1, or another runtime",
            )

    def _check_chip(self, point: "Point") -> None:
        limits, chip = self.limits, point.chip
        name = chip.name.partition("+")[0]
        runs = chip.kind in limits.kinds and (limits.chips is None or name in limits.chips)
        if not runs or name in limits.except_chips:
            where = _or(limits.chips) if limits.chips else " or ".join(limits.kinds)
            raise InvalidRequest(
                "runtime",
                self.name,
                f"does not run on hw={chip.name}",
                f"use a {where}, or another runtime, such as runtime=auto",
            )
        if not limits.several_nodes and point.num_chips > chip.node_size:
            raise InvalidRequest(
                "num_chips",
                point.num_chips,
                f"is more than the {chip.node_size} of a node, and runtime={self.name} runs on one",
                f"use at most {chip.node_size}, or another runtime",
            )


def _constants(key: str, content: object) -> dict[str, Constant]:
    return {name: Constant.from_config(f"{key}.{name}", found) for name, found in _mapping(key, content).items()}


def _mapping(key: str, content: object) -> dict[str, Any]:
    if content is not None and not isinstance(content, Mapping):
        raise InvalidRequest(key, content, "must be a mapping", _REMEDY)
    return {str(name): found for name, found in (content or {}).items()}


def _or(allowed: Sequence[str]) -> str:
    return " or ".join((", ".join(allowed[:-1]), allowed[-1]) if len(allowed) > 1 else allowed)


@cache
def shipped(name: str = BEST) -> Runtime:
    """The runtime of our own ``conf/runtime/NAME.yaml``, for an engine that is asked for none.

    A runtime that a user asks for comes with the point, from the user's config folders too.

    Raises:
        ShardbenchError: there is no such file.
    """
    from omegaconf import OmegaConf

    path = conf_dir() / "runtime" / f"{name}.yaml"
    if not path.is_file():
        raise ShardbenchError(f"conf/runtime/{name}.yaml: does not exist; the installation is incomplete")
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    return Runtime.from_config(content)

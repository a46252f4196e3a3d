"""Which parts of a model are left out: heads, feed-forward columns, layers, or two of every four weights."""

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from engines.core.errors import InvalidRequest, Unsupported
from engines.core.model import Model

if TYPE_CHECKING:
    from engines.core.point import Point

NONE: Final = "none"
TWO_OF_FOUR: Final = "2:4"
PARTS: Final = ("heads", "columns", "layers")
WIDTHS: Final = ("d_ff", "expert_d_ff", "shared_expert_d_ff")
"""Keys of a model that count hidden columns."""
LATENTS: Final = ("q_latent_dim", "kv_latent_dim")
"""And those that count latent ones."""
_PART: Final = re.compile(rf"({'|'.join(PARTS)}):(0?\.\d+)")
REMEDY: Final = "write heads:F, columns:F or layers:F with 0 < F < 1, or 2:4; join several with +"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """The fraction of each part that is left out.

    ``heads`` counts query heads where all share one key/value head, else key/value heads with their query heads, so
    that all groups stay alike. ``columns`` are hidden columns of each feed-forward. At least one of each part stays.
    ``two_of_four``: of four weights in a row of inputs, the two of least magnitude are 0 (the format of NVIDIA's sparse
    tensor cores from Ampere on; Mishra et al. 2021, arXiv 2104.08378); norms, biases and the embedding stay.
    """

    heads: float = 0.0
    columns: float = 0.0
    layers: float = 0.0
    two_of_four: bool = False

    @property
    def by_parts(self) -> bool:
        """Whether the model gets smaller."""
        return bool(self.heads or self.columns or self.layers)


@cache
def pruning_of(text: str) -> Pruning:
    """``columns:0.5+2:4``, in any order, each part once.

    Raises:
        InvalidRequest: it says something else.
    """
    found: dict[str, Any] = {}
    for word in [] if text == NONE else text.split("+"):
        part = _PART.fullmatch(word)
        name: str = "two_of_four" if word == TWO_OF_FOUR else "" if part is None else part[1]
        value = float(part[2]) if part is not None else word == TWO_OF_FOUR
        if not name or not value or name in found:
            raise InvalidRequest("pruning", text, "is not known", REMEDY)
        found[name] = value
    return Pruning(**found)


class PruningText:
    """The kind of the key ``pruning``: what :func:`pruning_of` reads."""

    def check(self, name: str, value: object, phase: str) -> None:
        """Raise InvalidRequest for anything else."""
        del phase
        if not isinstance(value, str):
            raise InvalidRequest(name, value, "is not known", REMEDY)
        pruning_of(value)

    def parse(self, name: str, text: str) -> str:
        """The text; the point checks it."""
        del name
        return text

    def alternatives(self, value: object) -> list[Any]:
        """A list is a grid."""
        return value if isinstance(value, list) else [value]


@cache
def pruned_model(model: Model, text: str) -> Model:
    """The architecture that is left. Its parameters are counted, not published.

    Raises:
        InvalidRequest: the share is so small that all parts would stay, or 2:4 finds no whole groups of four.
        Unsupported: layers of several kinds are to be left out, or heads with ALiBi's slopes.
    """
    pruning = pruning_of(text)
    if pruning.layers and len(set(model.layer_kinds)) > 1:
        raise Unsupported(f"pruning={text}: model={model.name} has layers of several kinds; prune heads or columns")
    if pruning.heads and model.position == "alibi":
        raise Unsupported(f"pruning={text}: ALiBi's slopes belong to heads, of model={model.name}; prune columns")
    widths = {key: width for key in WIDTHS if (width := getattr(model, key)) is not None}
    counts = {"heads": head_groups(model), "columns": max(widths.values()), "layers": model.num_layers}
    for part, count in counts.items():
        share = getattr(pruning, part)
        if share and left(count, share) == count:
            remedy = f"use {part}:{1 / count:.2g} or more" if count > 1 else "prune another part"
            problem = f"leaves out none of the {count} {part} of model={model.name} that can go one by one"
            raise InvalidRequest("pruning", text, problem, remedy)
    changes: dict[str, Any] = {}
    if pruning.heads:
        kept = left(head_groups(model), pruning.heads)
        changes["num_heads"] = kept * (model.num_heads // head_groups(model))
        if model.num_kv_heads > 1:
            changes["num_kv_heads"] = kept
    if pruning.columns:
        changes |= {key: left(width, pruning.columns) for key, width in widths.items()}
    if pruning.layers:
        changes["num_layers"] = left(model.num_layers, pruning.layers)
    if not changes and not pruning.two_of_four:
        return model
    smaller = replace(model, **changes)
    if pruning.two_of_four:
        _check_fours(smaller, text)
    multiplied = smaller.matmul_flops_per_token / 2 - smaller.head_params
    zeros = multiplied / 2 if pruning.two_of_four else 0.0
    return replace(smaller, published_params=float(smaller.params), mfu_params=smaller.active_params - zeros)


def _check_fours(model: Model, text: str) -> None:
    """Check that the inputs of every matrix are groups of four, as the format of 2:4 has them."""
    sizes = {"d_model": model.d_model, "heads · head_dim": model.num_heads * model.attention.value_dim}
    sizes |= {key: size for key in (*WIDTHS, *LATENTS) if (size := getattr(model, key)) is not None}
    for key, size in sizes.items():
        if size % 4:
            problem = f"needs groups of four inputs, and {key} = {size} of model={model.name} is no multiple of 4"
            raise InvalidRequest("pruning", text, problem, "leave 2:4 out, or use another share of that part")


def head_groups(model: Model) -> int:
    """How many units of heads can be left out: key/value heads, or query heads where there is one of those."""
    return model.num_kv_heads if model.num_kv_heads > 1 else model.num_heads


def left(count: int, fraction: float) -> int:
    """How many of ``count`` stay where ``fraction`` of them goes."""
    return max(1, round(count * (1 - fraction)))


def as_run(point: "Point") -> "Point":
    """The point of the model that is left, as engines run it; 2:4 stays a key, since it changes no shape.

    Raises:
        Unsupported: as :func:`pruned_model`.
    """
    if point.pruning == NONE:
        return point
    pruning = pruning_of(point.pruning)
    model = pruned_model(point.model, point.pruning)
    return replace(point, model=model, pruning=TWO_OF_FOUR if pruning.two_of_four else NONE)

"""How tokens are proposed: options of the programs beside the plan. Imports no JAX."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.core.errors import InvalidRequest, Unsupported
from engines.core.point import Point

if TYPE_CHECKING:
    from engines.transformer.partition.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """``count`` tokens are proposed a turn, by a ``draft`` model, by the first ``layers`` of the model itself
    (``self``), or by what followed the same ``ngram`` tokens before. ``forced`` is the probability with which a
    proposed token is kept whatever it is; None keeps the model's output.
    """

    way: str
    count: int
    layers: int = 0
    ngram: int = 2
    forced: float | None = None


def speculation_of(point: Point, ngram: int = 2) -> Speculation | None:
    """What a point asks; None where it does not speculate.

    Raises:
        InvalidRequest: no text of the point is long enough to have so many tokens twice.
    """
    if point.speculative == "none":
        return None
    if point.speculative == "ngram" and ngram >= (longest := point.input_len + point.output_len):
        problem = f"never stands twice in the {longest} tokens of input_len and output_len"
        raise InvalidRequest("engine.ngram", ngram, problem, f"use at most {max(1, longest - 1)}, such as 2")
    return Speculation(
        way=point.speculative,
        count=point.draft_len or 0,
        layers=point.draft_layers or 0,
        ngram=ngram,
        forced=point.acceptance_rate,
    )


def check_speculation(point: Point, plan: "Plan") -> None:
    """Check that sequences of the plan can be of different lengths.

    Raises:
        InvalidRequest: no token is cached that a draft model could begin with.
        Unsupported: the compiler partitions, positions are split or a prefix shared, or a layer keeps too few of them.
    """
    key = f"speculative={point.speculative}"
    if not point.input_len:
        raise InvalidRequest("input_len", 0, f"leaves {key} no token to begin with", "use input_len=1 or more")
    if plan.partitioner == "gspmd":
        raise Unsupported(f"{key}: needs partitioner=manual")
    if plan.axes.positions:
        raise Unsupported(f"{key}: each sequence writes at its own positions; use attn_sharding=heads or batch")
    if plan.prefill.prefix:
        raise Unsupported(f"{key}: does not go with engine.shared_prefix={plan.prefill.prefix}; leave it out")
    if plan.model.attention.is_latent:
        raise Unsupported(f"{key}: is not supported with the latent attention of model={plan.model.name}")
    short = [kind.window for kind in plan.model.layer_kinds if kind.window and kind.window < plan.cache_len]
    if short:
        raise Unsupported(
            f"{key}: tokens that are taken back have overwritten the first of a window; model={plan.model.name} has "
            f"windows of {min(short)} tokens, and input_len + output_len + draft_len is {plan.cache_len}"
        )

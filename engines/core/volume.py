"""Communication volume of a layer's projections, and of attention over the sequence: closed forms of every engine.

Sizes may be numbers or arrays of them, in elements or bytes. A payload is one chip's whole buffer: the output of an
all-gather, the input of a reduce-scatter; over n chips a link then carries payload·(n − 1)/n (Pope et al. 2022,
appendix A.1). An all-to-all's is its input.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from engines.core.layout import Layout

Size = Callable[[str], Any]
"""Mesh axes → number of chips along them."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One collective: HLO kind, mesh axes, payload size, what it carries, and on which side of the projection."""

    kind: Literal["all-gather", "reduce-scatter", "all-reduce", "all-to-all"]
    axes: str
    size: Any
    of: Literal["residual", "columns"]
    side: Literal["in", "out"]


def activation_payloads(
    layout: Layout, size: Size, *, tokens: Any, d_model: Any, inward: Any, outward: Any, whole_residual: bool = False
) -> Iterator[Payload]:
    """Collectives of activations around one projection in and back out (Pope et al. 2022, section 3.2).

    ``tokens`` are a chip's share; ``inward`` are the columns that a chip's matmul in makes before they are summed over
    the axes of E, ``outward`` those that its matmul out reads. With t tokens:

    - over F's axes an all-gather of t·E/size(embed) in, and a reduce-scatter of as much out;
    - over E's axes a reduce-scatter of t·inward, and an all-gather of t·outward.

    With a ``whole_residual`` there is nothing to gather over F's axes, and an all-reduce of as much out.
    """
    residual = tokens * (d_model / size(layout.embed))
    if not whole_residual:
        yield Payload("all-gather", layout.ffn, residual, "residual", "in")
    yield Payload("reduce-scatter", layout.embed, tokens * inward, "columns", "in")
    yield Payload("all-gather", layout.embed, tokens * outward, "columns", "out")
    yield Payload("all-reduce" if whole_residual else "reduce-scatter", layout.ffn, residual, "residual", "out")


def gathered_weights(layout: Layout, size: Size, elements: Any) -> Any:
    """Of a matrix of ``elements``, what a chip holds once its layout's gathered axes are gathered."""
    return elements * size(layout.gathered) / size("xyz")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A collective of attention, ``times`` of them: HLO kind, payload in elements, and what these elements are.

    ``columns`` are in the format of activations, ``cached`` in that of the cache, ``statistics`` in float32.
    """

    kind: Literal["all-gather", "reduce-scatter", "all-to-all", "collective-permute"]
    elements: Any
    of: Literal["columns", "cached", "statistics"]
    times: Any = 1


def sequence_prompt(*, chips: Any, tokens: Any, query: Any, new: Any, value: Any, held: Any) -> Iterator[Exchange]:
    """A whole prompt over ``chips`` that share its positions: columns for positions and back, and keys in a ring.

    Of a token, ``query``, ``new`` (keys and values) and ``value`` (what attention returns) are columns of all heads
    with which one of these chips attends, ``held`` what it caches of them. ``tokens`` are a chip's share of the batch
    times the prompt.
    """
    yield Exchange("all-to-all", tokens * (query + new) / chips, "columns")
    yield Exchange("collective-permute", tokens * held / chips, "cached", chips - 1)
    yield Exchange("all-to-all", tokens * value / chips, "columns")


def sequence_step(*, chips: Any, tokens: Any, query: Any, new: Any, value: Any, heads: Any) -> Iterator[Exchange]:
    """A decode step, or a chunk of a prompt, over ``chips`` that share positions: queries gathered, results merged.

    As :func:`sequence_prompt`; every one of ``heads`` sends the largest of its scores and their sum.
    """
    yield Exchange("all-gather", tokens * (query + new), "columns")
    yield Exchange("all-gather", 2 * tokens * heads * chips, "statistics")
    yield Exchange("reduce-scatter", tokens * value, "columns")


def expert_payloads(
    layout: Layout,
    experts: str,
    size: Size,
    *,
    sends: bool,
    tokens: Any,
    d_model: Any,
    sent: Any,
    rows: Any,
    inward: Any,
    outward: Any,
    whole_residual: bool = False,
) -> Iterator[Payload]:
    """Collectives of activations around experts that the mesh axes ``experts`` split, as :func:`activation_payloads`.

    Of a chip, ``tokens`` are its share t of the residual stream's; ``rows`` are those of its experts, of which the
    matmul in makes ``inward`` columns that are still to be summed over the axes of E, and the matmul out reads
    ``outward``. Inside an expert the other axes cut E and F, embed′ and ffn′. Without ``sends``, with E′ = E/embed′:

    - an all-gather of t·E′ along E over the axes of F and of the experts, and one of tokens over those of the experts
      over which the layout splits them;
    - the same back as reduce-scatters: the sum over experts is part of the sum over F.

    With ``sends`` a chip first exchanges its part of E of all tokens for all of E of t′ = t/spread of its own, over the
    axes of the experts that do not split tokens yet; then it gathers t′·E′ over ffn′, sends ``sent`` rows of E′ to
    their experts and gets as many back, and all the way back. With balanced routing that is t′·k rows.
    """

    def left(axes: str) -> str:
        return "".join(axis for axis in axes if axis not in experts)

    embed = left(layout.embed)
    batch = "".join(axis for axis in layout.gathered if axis in experts)
    residual = layout.embed + ("" if whole_residual else layout.ffn)
    whole = "".join(axis for axis in residual if axis not in embed)
    summed = layout.ffn if whole_residual else ""
    part = d_model / size(embed)
    if not sends:
        yield Payload("all-gather", whole, tokens * part, "residual", "in")
        yield Payload("all-gather", batch, tokens * size(batch) * part, "residual", "in")
    else:
        spread = "".join(axis for axis in experts if axis not in layout.gathered)
        exchanged = "".join(axis for axis in whole if axis in spread)
        cut = "".join(axis for axis in spread if axis not in residual)
        gathered, summed = left(whole), left(summed)
        own, fine = tokens / size(spread), tokens / size(cut) * d_model / size(residual)
        yield Payload("all-to-all", exchanged, fine, "residual", "in")
        yield Payload("all-gather", gathered, own * part, "residual", "in")
        yield Payload("all-to-all", experts, sent * part, "residual", "in")
    yield Payload("reduce-scatter", embed, rows * inward, "columns", "in")
    yield Payload("all-gather", embed, rows * outward, "columns", "out")
    if not sends:
        yield Payload("reduce-scatter", batch, tokens * size(batch) * part, "residual", "out")
        yield Payload("reduce-scatter", whole, tokens * part, "residual", "out")
        yield Payload("all-reduce", summed, tokens * part / size(whole), "residual", "out")
        return
    yield Payload("all-to-all", experts, sent * part, "residual", "out")
    yield Payload("reduce-scatter", gathered, own * part, "residual", "out")
    yield Payload("all-reduce", summed, own * part / size(gathered), "residual", "out")
    yield Payload("all-to-all", exchanged, fine, "residual", "out")
    yield Payload("all-gather", cut, tokens * d_model / size(residual), "residual", "out")

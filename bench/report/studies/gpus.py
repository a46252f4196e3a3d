"""The study of GPUs: what the GPU compiler's programs take at their rooflines, beside what was published."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.report.studies.findings import Told, published_s
from bench.rows.frontier import time_of
from bench.rows.labels import model_label
from engines.core.row import Row

PHASE: Final = {"prefill": "prefill", "decode": "decode", "generate": "decode"}
"""Phase of a row → the program of it whose loop over layers is shown."""


Parts = tuple[list[str], dict[str, Any]]
"""Sentences and the numbers in them."""


def bounds_beside_published(rows: Sequence[Row]) -> Told | None:
    """The bound as a share of the published time, chips against each other, and what the loop over layers does."""
    timed = [row for row in rows if row.status == "ok" and time_of(row)]
    said, numbers = [], dict[str, Any]()
    for told, found in (_shares(timed), _machines(timed), _without_arithmetic(timed)):
        said += told
        numbers |= found
    return (". ".join(said) + ".", numbers) if said else None


def hot_loop(row: Row) -> Mapping[str, Any]:
    """The row's summary of its loop over layers; empty where it has none."""
    found: Mapping[str, Any] = row.details.get("hot_loop", {}).get(PHASE[row.phase], {})
    return found


def share_without_arithmetic(row: Row) -> float | None:
    """Part of a turn of the loop over layers that goes to instructions that only move bytes within a GPU."""
    kinds = hot_loop(row).get("by_kind", [])
    seconds = sum(kind["seconds"] for kind in kinds)
    moving = sum(kind["seconds"] for kind in kinds if kind.get("flops") == 0)
    return moving / seconds if seconds else None


def without_copies_s(row: Row) -> float | None:
    """The row's time without the instructions that only cut a layer's weights out of the stack of all layers.

    None where it has none of those. They are slices, named so by XLA, that do no arithmetic and update nothing.
    """
    copied = 0.0
    for loop in row.details.get("hot_loop", {}).values():
        slices = [kind for kind in loop.get("by_kind", []) if _is_slice(kind)]
        copied += loop.get("turns", 0) * sum(kind["seconds"] for kind in slices)
    seconds = time_of(row)
    if not copied or not seconds or not row.latency_s:
        return None
    return seconds * (1 - copied / row.latency_s)


def least_s(row: Row) -> float | None:
    """The row's time on the kindest machine that its engine knows; None where it knows none."""
    seconds, least = time_of(row), row.details.get("least_s")
    return seconds * least / row.latency_s if seconds and least and row.latency_s else None


def _is_slice(kind: Mapping[str, Any]) -> bool:
    return kind.get("flops") == 0 and "dynamic_slice" in kind["name"]


def _shares(rows: Sequence[Row]) -> Parts:
    shares = {row.point_id: (time_of(row) or 0) / beside for row in rows if (beside := published_s(row))}
    said, numbers = [], dict[str, Any]()
    for chips in sorted({row.num_chips for row in rows if row.point_id in shares}, reverse=True):
        mine = [row for row in rows if row.num_chips == chips and row.point_id in shares]
        for row in mine:
            numbers[f"{row.model}.{chips}.{row.batch_size}.share"] = shares[row.point_id]
        low, high = (choose(mine, key=lambda row: shares[row.point_id]) for choose in (min, max))
        told = f"{shares[low.point_id]:.0%} (batch {low.batch_size})"
        if low is not high:
            told += f" to {shares[high.point_id]:.0%} (batch {high.batch_size})"
        below = sum(shares[row.point_id] < 1 for row in mine)
        count = f"{below} of {len(mine)} points" if len(mine) > 1 else ("this point" if below else "no point")
        gpus = f"{chips} {low.hw}" if chips > 1 else f"one {low.hw}"
        told = f"{model_label(low.model)} on {gpus}: the bound is {told} of the published time, below it at {count}"
        kinder = {
            "without its copies of weights": without_copies_s(high),
            "if the L2 cache kept all that fits into it": least_s(high),
        }
        beside = published_s(high) or 0.0
        shares_of = {what: seconds / beside for what, seconds in kinder.items() if seconds is not None and beside}
        if shares_of:
            parts = " and ".join(f"{share:.0%} {what}" for what, share in shares_of.items())
            told += f" (at batch {high.batch_size} {parts})"
        for what, share in shares_of.items():
            numbers[f"{high.model}.{chips}.{high.batch_size}.share {what}"] = share
        said.append(told)
    return said, numbers


def _machines(rows: Sequence[Row]) -> Parts:
    """The same question on several chips."""
    said, numbers = [], dict[str, Any]()
    asked = {(row.model, row.phase, row.batch_size, row.input_len, row.output_len, row.num_chips) for row in rows}
    for model, phase, batch, tokens, generated, chips in sorted(asked):
        key = (model, phase, batch, tokens, generated, chips)
        mine = [
            row
            for row in rows
            if (row.model, row.phase, row.batch_size, row.input_len, row.output_len, row.num_chips) == key
        ]
        if len({row.hw for row in mine}) < 2:
            continue
        slow, fast = (choose(mine, key=lambda row: time_of(row) or 0) for choose in (max, min))
        ratio = (time_of(slow) or 0) / (time_of(fast) or 1)
        times = ", ".join(f"{1e3 * (time_of(row) or 0):.3g} ms on {row.hw}" for row in mine)
        said.append(f"{model_label(model)}, {phase}, batch {batch}: {times} ({ratio:.2f}×)")
        numbers |= {f"{model}.{phase}.{row.hw}.s": time_of(row) for row in mine}
    return said, numbers


def _without_arithmetic(rows: Sequence[Row]) -> Parts:
    """Of the row whose loop over layers has the largest such part."""
    known = {row.point_id: share for row in rows if (share := share_without_arithmetic(row))}
    if not known:
        return [], {}
    row = max((row for row in rows if row.point_id in known), key=lambda row: known[row.point_id])
    kinds = [kind for kind in hot_loop(row)["by_kind"] if kind.get("flops") == 0]
    first = max(kinds, key=lambda kind: kind["seconds"])["name"]
    where = f"{model_label(row.model)}, {PHASE[row.phase]}, batch {row.batch_size}, {row.num_chips} {row.hw}"
    told = (
        f"Instructions that only move bytes, most of all {first}, take up to {known[row.point_id]:.0%} of the loop "
        f"over layers ({where}): the compiler copies a layer's weights out of the stack before it multiplies by them"
    )
    return [told], {"without_arithmetic": known[row.point_id]}

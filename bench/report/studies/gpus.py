"""The study of GPUs: the GPU compiler's programs at their rooflines against published times."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.report.studies.findings import Found, published_s
from bench.rows.frontier import time_of
from engines.core.row import Row

PHASE: Final = {"prefill": "prefill", "decode": "decode", "generate": "decode"}
"""Phase of a row → the program of it whose loop over layers is shown."""


def bounds_below_published(rows: Sequence[Row]) -> Found | None:
    """At how many points the roofline bound is below the published time, as a lower bound must be.

    The numbers hold each bound as a share of the published time, also without copies of weights and on an ideal cache,
    times on several chips, and the largest share of a layer's turn without arithmetic.
    """
    timed = [row for row in rows if row.status == "ok" and time_of(row)]
    shares = {row.point_id: (time_of(row) or 0) / stated for row in timed if (stated := published_s(row))}
    numbers = {**_share_numbers(timed, shares), **_chip_numbers(timed), **_without_arithmetic(timed)}
    if shares:
        below = sum(share < 1 for share in shares.values())
        sentence = f"The roofline bound is below the published time at {below} of {len(shares)} points."
    elif "without_arithmetic" in numbers:
        share = numbers["without_arithmetic"]
        sentence = f"Instructions without arithmetic take up to {share:.0%} of the loop over layers."
    else:
        return None
    return sentence, numbers


def hot_loop(row: Row) -> Mapping[str, Any]:
    """The row's summary of its loop over layers; empty where it has none."""
    found: Mapping[str, Any] = row.details.get("hot_loop", {}).get(PHASE[row.phase], {})
    return found


def share_without_arithmetic(row: Row) -> float | None:
    """Share of a turn of the loop over layers that goes to instructions that only move bytes within a GPU."""
    kinds = hot_loop(row).get("by_kind", [])
    seconds = sum(kind["seconds"] for kind in kinds)
    moving = sum(kind["seconds"] for kind in kinds if kind.get("flops") == 0)
    return moving / seconds if seconds else None


def without_copies_s(row: Row) -> float | None:
    """The row's time without the instructions that only slice a layer's weights from the stack of all layers.

    None without any. XLA names them dynamic slices; they do no arithmetic and update nothing.
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
    """The row's time in its engine's best case, an ideal L2 cache; None where it states none."""
    seconds, least = time_of(row), row.details.get("least_s")
    return seconds * least / row.latency_s if seconds and least and row.latency_s else None


def _is_slice(kind: Mapping[str, Any]) -> bool:
    return kind.get("flops") == 0 and "dynamic_slice" in kind["name"]


def _share_numbers(rows: Sequence[Row], shares: Mapping[str, float]) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for row in rows:
        if row.point_id in shares:
            name, stated = f"{row.model}.{row.num_chips}.{row.batch_size}.share", published_s(row) or 0.0
            numbers[name] = shares[row.point_id]
            for what, seconds in (
                ("without copies of weights", without_copies_s(row)),
                ("with an ideal L2 cache", least_s(row)),
            ):
                if seconds is not None:
                    numbers[f"{name} {what}"] = seconds / stated
    return numbers


def _chip_numbers(rows: Sequence[Row]) -> dict[str, Any]:
    """Times of the points that several chips have."""
    chips: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row.model, row.phase, row.batch_size, row.input_len, row.output_len, row.num_chips)
        chips.setdefault(key, []).append(row)
    several = (mine for mine in chips.values() if len({row.hw for row in mine}) > 1)
    return {f"{row.model}.{row.phase}.{row.hw}.s": time_of(row) for mine in several for row in mine}


def _without_arithmetic(rows: Sequence[Row]) -> dict[str, Any]:
    """The largest share of a turn of the loop over layers that goes to instructions without arithmetic."""
    shares = [share for row in rows if (share := share_without_arithmetic(row))]
    return {"without_arithmetic": max(shares)} if shares else {}

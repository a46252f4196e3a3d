"""Rows of one workload run in several ways: by our program, by a compiler that partitions, and by that with a plan."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.rows.frontier import time_of
from bench.rows.labels import model_label
from engines.core.row import Row

MANUAL: Final = "manual"
GSPMD: Final = "gspmd"
ALPA: Final = "alpa"
WAYS: Final = {MANUAL: "our program", GSPMD: "the compiler", ALPA: "the compiler, by Alpa's plan"}
KEYS: Final = ("model", "hw", "num_chips", "phase", "batch_size", "input_len", "weight_dtype")
OPERATORS: Final = "operators"


def way_of(row: Row) -> str:
    """How a row's program is partitioned: one of :data:`WAYS`."""
    return ALPA if row.planner == ALPA or row.shardings else GSPMD if row.partitioner == GSPMD else MANUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One workload: the compiled row of each way that was compiled, and the predicted one where there is one."""

    key: tuple[Any, ...]
    compiled: Mapping[str, Row]
    predicted: Mapping[str, Row]

    @property
    def label(self) -> str:
        """Such as ``PaLM 540B, 64 tpu-v4, decode, batch 64``."""
        row = next(iter(self.compiled.values()))
        return f"{model_label(row.model)}, {row.num_chips} {row.hw}, {row.phase}, batch {row.batch_size}"

    @property
    def name(self) -> str:
        """For names of files."""
        row = next(iter(self.compiled.values()))
        return f"{row.model}_{row.num_chips}_{row.phase}_{row.batch_size}".replace("-", "_")

    @property
    def layout(self) -> str:
        """The named layout that the first two ways run."""
        row = next((row for way, row in self.compiled.items() if way != ALPA), None)
        return "" if row is None else f"{row.ffn_layout}/{row.attn_sharding}"

    @property
    def named_s(self) -> float | None:
        """Seconds of the named layout by the costs that Alpa's plan was made with; None without a plan's prediction."""
        row = self.predicted.get(ALPA)
        plan = {} if row is None else row.details.get("plan", {})
        found: float | None = plan.get("named_pass_s", {}).get(self.layout)
        return found

    def operators(self, way: str) -> Mapping[str, Mapping[str, Any]]:
        """Operator → what it became (:mod:`engines.compiled.operators`); empty without an answer."""
        row = self.compiled.get(way)
        told = {} if row is None else row.details.get(OPERATORS, {}).get(row.phase, [])
        return {each["operator"]: each for each in told}

    def sent_bytes(self, way: str) -> float:
        """Bytes of all collectives of one pass, each of a chip's larger side."""
        every = (each for told in self.operators(way).values() for each in told["collectives"])
        return math.fsum(each["bytes"] * each["runs"] for each in every)


def workloads(rows: Sequence[Row]) -> list[Workload]:
    """The workloads compiled in several ways, or with a row that says what operators became, in order of the rows."""
    found: dict[tuple[Any, ...], tuple[dict[str, Row], dict[str, Row]]] = {}
    for row in rows:
        if row.source in ("compiled", "predicted") and row.phase in ("prefill", "decode"):
            both = found.setdefault(tuple(getattr(row, key) for key in KEYS), ({}, {}))
            both[row.source == "predicted"].setdefault(way_of(row), row)
    kept = [Workload(key=key, compiled=compiled, predicted=predicted) for key, (compiled, predicted) in found.items()]
    return [each for each in kept if len(each.compiled) > 1 or any(each.operators(way) for way in WAYS)]


def seconds(row: Row | None) -> float | None:
    """Seconds of a decode step or of a prefill; None without an answer."""
    return None if row is None or row.status != "ok" else time_of(row)

"""The published rows as they stand in ``data/*.csv``."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from engines.core.point import Point
from engines.core.row import Status

TIMED_FILES: Final = (
    "paper_table2.csv",
    "paper_table_d3.csv",
    "fastertransformer_mt-nlg-530b.csv",
    "fastertransformer_gpt-20b.csv",
)
INTEGER_KEYS: Final = frozenset(
    {"num_chips", "tensor_parallel", "pipeline_parallel", "batch_size", "input_len", "output_len"}
)
POINT_KEYS: Final = (
    "model",
    "hw",
    "num_chips",
    "tensor_parallel",
    "pipeline_parallel",
    "phase",
    "batch_size",
    "input_len",
    "output_len",
    "weight_dtype",
    "ffn_layout",
    "attn_sharding",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One line of a published table. ``question`` holds the keys of the point that the source states, and no others."""

    reference: str
    system: str
    question: Mapping[str, Any]
    latency_s: float | None
    mfu: float | None
    status: Status

    def answers(self, point: Point) -> bool:
        """Whether this is the answer to ``point``.

        It is where every key that the source states is asked for, or is left open by the point. A choice that the
        point makes and the source does not state is not answered.
        """
        asked = point.axes()
        for key in POINT_KEYS:
            published = self.question.get(key)
            if asked[key] in (None, "auto"):
                continue
            if asked[key] != published:
                return False
        return (
            point.mesh_shape is None
            and point.partitioner == "manual"
            and point.collectives == "auto"
            and point.kv_dtype == point.act_dtype
        )


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Every published row that states a time or an out-of-memory, in file order."""
    return tuple(_row(cells) for name in TIMED_FILES for cells in read_table(name))


def read_table(name: str) -> list[dict[str, str]]:
    """The cells of one file of ``data/`` as text, one dictionary a line."""
    text = (files("engines.published") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _row(cells: Mapping[str, str]) -> PublishedRow:
    question: dict[str, Any] = {
        key: int(cells[key]) if key in INTEGER_KEYS else cells[key] for key in POINT_KEYS if cells[key]
    }
    return PublishedRow(
        reference=cells["source"],
        system=cells["system"],
        question=question,
        latency_s=float(cells["latency_s"]) if cells["latency_s"] else None,
        mfu=float(cells["mfu"]) if cells["mfu"] else None,
        status="oom" if cells["status"] == "oom" else "ok",
    )

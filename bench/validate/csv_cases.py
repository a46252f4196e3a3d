"""Reading a CSV of published or measured times, in the columns of ``engines/published/data``."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.sweep.catalog import load_chip, load_model
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.keys import parse, required
from engines.core.point import Point
from engines.published.table import CHIP_AND_MODEL, columns

FIRST_TOKEN_FROM_PREFILL: Final = (
    "deepspeed",
    "fastertransformer",
    "gpt-fast",
    "lmdeploy",
    "megatron",
    "sglang",
    "tensorrt-llm",
    "torch-eager",
    "transformers",
    "trtllm",
    "vllm",
)
"""Runtimes that sample the first token from the prefill's logits, by the first word of ``system``."""
MAX_LATENCY_S: Final = 1e5
"""A longer time is rejected, because it is probably in milliseconds or microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line: the point and its time in seconds (None if it was out of memory)."""

    file: str
    line: int
    system: str
    reference: str
    point: Point
    latency_s: float | None
    oom: bool

    @property
    def parallelism(self) -> str:
        """``tp8 pp3`` on GPUs, else chips, layout and sharding."""
        if self.point.chip.kind == "gpu":
            return f"tp{self.point.tensor_degree} pp{self.point.pipeline_degree}"
        return f"{self.point.num_chips} chips {self.point.ffn_layout} {self.point.attn_sharding}"


def read_cases(path: Path, engine: str) -> list[Case]:
    """Every line of ``path``, checked. An empty cell means the engine's own choice.

    A file has the columns of the published tables. Any other key of a point may be a column too; further columns are
    ignored. If ``first_token`` is absent or empty, it is ``prefill`` for a ``system`` whose name begins with one of
    :data:`FIRST_TOKEN_FROM_PREFILL`, and ``decode`` for others.

    Raises:
        ShardbenchError: the file cannot be read or a line is invalid; names the file, the line and the remedy.
    """
    if not path.is_file():
        raise InvalidRequest(
            "data",
            str(path),
            "is not a file",
            "use a CSV file with the columns of engines/published/data, or a results folder",
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            _check_header(path, list(reader.fieldnames or ()))
            cases = [_case(path, reader.line_num, cells, engine) for cells in reader]
    except UnicodeDecodeError:
        raise ShardbenchError(f"{path}: is not UTF-8 text; save it as CSV") from None
    except csv.Error as error:
        raise ShardbenchError(f"{path}:{reader.line_num}: is not valid CSV ({error}); fix its syntax") from None
    if not cases:
        raise ShardbenchError(f"{path}:1: has a header but no rows; add rows")
    return cases


def _check_header(path: Path, names: list[str]) -> None:
    if "max_context_len" in names and "latency_s" not in names:
        raise ShardbenchError(f"{path}:1: column latency_s is missing; use a table of times, not of memory limits")
    missing = [name for name in columns() if name not in names]
    if missing:
        raise ShardbenchError(
            f"{path}:1: column {missing[0]} is missing; the columns are {','.join(columns())} "
            "(an empty cell means the engine's own choice)"
        )


def _case(path: Path, line: int, cells: Mapping[str | None, Any], engine: str) -> Case:
    place = f"{path}:{line}"
    if None in cells or None in cells.values():
        count = sum(value is not None for key, value in cells.items() if key is not None) + len(cells.get(None) or ())
        raise ShardbenchError(f"{place}: has {count} cells, unlike the header; quote cells that contain commas")
    text = {str(key): str(value).strip() for key, value in cells.items()}
    if text["status"] not in ("ok", "oom"):
        raise ShardbenchError(f"{place}: status={text['status']}: is not known; use ok or oom")
    oom = text["status"] == "oom"
    try:
        return Case(
            file=path.name,
            line=line,
            system=text["system"],
            reference=text["source"],
            point=_point(text, engine),
            latency_s=_latency(text, oom),
            oom=oom,
        )
    except ShardbenchError as error:
        raise ShardbenchError(f"{place}: {error}") from None


def _point(text: Mapping[str, str], engine: str) -> Point:
    for name in (*CHIP_AND_MODEL, *required(Point.schema())):
        if not text[name] and (name, text["phase"]) != ("output_len", "prefill"):
            raise InvalidRequest(name, "", "is empty", "only layouts, degrees and dtypes may be empty")
    keys: dict[str, Any] = {"output_len": 0, "first_token": _convention(text["system"])}
    keys |= parse(Point.schema(), text)
    point = Point(model=load_model(text["model"]), chip=load_chip(text["hw"]), engine=engine, **keys)
    point.check()
    mfu = _number("mfu", text["mfu"]) if text["mfu"] else 0.0
    if not 0 <= mfu <= 1:
        raise InvalidRequest("mfu", text["mfu"], "must be a fraction from 0 to 1", "use 0.43 for 43%")
    return point


def _latency(text: Mapping[str, str], oom: bool) -> float | None:
    if not text["latency_s"]:
        if oom:
            return None
        raise InvalidRequest("latency_s", "", "is empty although status=ok", "use seconds, or status=oom")
    if oom:
        raise InvalidRequest(
            "latency_s", text["latency_s"], "must be empty if status=oom", "remove it, or use status=ok"
        )
    seconds = _number("latency_s", text["latency_s"])
    if seconds <= 0:
        raise InvalidRequest("latency_s", text["latency_s"], "must be a number > 0", "use seconds")
    if seconds > MAX_LATENCY_S:
        raise InvalidRequest(
            "latency_s", text["latency_s"], f"is over {MAX_LATENCY_S:.0e} s, probably in another unit", "use seconds"
        )
    return seconds


def _number(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidRequest(key, text, "must be a number", "use a number such as 0.0285")
    return number


def _convention(system: str) -> str:
    """The ``first_token`` of the runtime that ``system`` names."""
    return "prefill" if system.lower().startswith(FIRST_TOKEN_FROM_PREFILL) else "decode"

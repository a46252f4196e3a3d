"""The tables that llama-bench prints, as the mappings of its JSON: ``-o csv``, ``sql`` and ``md``."""

import csv
import re
from collections.abc import Mapping
from typing import Any, Final

NUMBERS: Final = frozenset(
    {
        *("build_number", "model_size", "model_n_params", "n_batch", "n_ubatch", "n_threads", "poll", "n_gpu_layers"),
        *("n_cpu_moe", "main_gpu", "cpu_strict", "no_kv_offload", "flash_attn", "use_mmap", "embeddings"),
        *("no_op_offload", "n_prompt", "n_gen", "n_depth", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts"),
    }
)
"""Columns that are numbers in the JSON; a table quotes them."""
UNEVEN: Final = "cells_more_than_headings"
INSERT: Final = re.compile(r"INSERT INTO \w+ \(([^)]*)\) VALUES \((.*)\);")
COLUMNS: Final = {
    **{"model": "model_type", "size": "model_size", "params": "model_n_params", "backend": "backends"},
    **{"threads": "n_threads", "ngl": "n_gpu_layers", "ncmoe": "n_cpu_moe", "sm": "split_mode", "mg": "main_gpu"},
    **{"nkvo": "no_kv_offload", "fa": "flash_attn", "dev": "devices", "ts": "tensor_split", "mmap": "use_mmap"},
    **{"embd": "embeddings", "ot": "tensor_buft_overrides", "nopo": "no_op_offload", "dio": "use_direct_io"},
}
"""Heading of the Markdown table → key of the JSON, where it is another."""
TEST: Final = re.compile(r"(?:pp ?(?P<n_prompt>\d+))?\+?(?:tg ?(?P<n_gen>\d+))?(?: ?@ ?d(?P<n_depth>\d+))?")
RATE: Final = re.compile(r"([\d.]+)(?: ± ([\d.]+))?")
QUANTITY: Final = re.compile(r"([\d.]+) (KiB|MiB|GiB|TiB|K|M|B|T)")
UNITS: Final = {
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
    **{"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12},
}


def parse(text: str) -> list[Mapping[str, Any]] | None:
    """The results of a text, with the keys of the JSON; None if it is no table of llama-bench."""
    lines = [line for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else ""
    if first.startswith("CREATE TABLE") and any(INSERT.match(line) for line in lines):
        return [_typed(each) for line in lines if (each := _inserted(line)) is not None]
    heading = next(csv.reader([first]), [])
    if {"n_prompt", "n_gen", "avg_ts"} <= set(heading):
        return [_typed(_cells(heading, cells)) for cells in csv.reader(lines[1:])]
    return _markdown(lines) or None


def _inserted(line: str) -> dict[str, Any] | None:
    found = INSERT.match(line)
    if found is None:
        return None
    values = next(csv.reader([found[2]], quotechar="'", skipinitialspace=True))
    return _cells([each.strip() for each in found[1].split(",")], values)


def _cells(headings: list[str], cells: list[str]) -> dict[str, Any]:
    """Heading → cell; a row that was cut, or has more, says so under a key that the reader of the format refuses."""
    apart = len(cells) - len(headings)
    return dict(zip(headings, cells, strict=False)) | ({UNEVEN: apart} if apart else {})


def _markdown(lines: list[str]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    headings: list[str] = []
    for line in lines:
        if not line.lstrip().startswith("|"):
            headings = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if "model" in cells and "t/s" in cells and "test" in cells:
            headings = cells
        elif headings and not set(line) <= set("|-: "):
            found.append(_row(_cells(headings, cells if line.rstrip().endswith("|") else cells[:-1])))
    return found


def _row(cells: Mapping[str, str]) -> dict[str, Any]:
    """A row of the Markdown table. What cannot be read keeps its text, which the reader of the format refuses."""
    values = _typed({COLUMNS.get(key, key): cell for key, cell in cells.items() if key not in ("test", "t/s")})
    for key in ("model_size", "model_n_params"):
        if (quantity := QUANTITY.fullmatch(str(values.get(key, "")))) is not None:
            values[key] = float(quantity[1]) * UNITS[quantity[2]]
    test, rate = TEST.fullmatch(cells.get("test", "")), RATE.fullmatch(cells.get("t/s", ""))
    numbers = dict.fromkeys(("n_prompt", "n_gen", "n_depth"), cells.get("test", ""))
    if test is not None and cells.get("test"):
        numbers = {key: str(value or 0) for key, value in test.groupdict().items()}
    rates = {"avg_ts": cells.get("t/s", "")} if rate is None else {"avg_ts": rate[1], "stddev_ts": rate[2] or "0"}
    return {**values, **_typed({**numbers, **rates})}


def _typed(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _number(value) if key in NUMBERS else value for key, value in cells.items()}


def _number(text: Any) -> Any:
    try:
        return int(text)
    except (TypeError, ValueError):
        try:
            return float(text)
        except (TypeError, ValueError):
            return text

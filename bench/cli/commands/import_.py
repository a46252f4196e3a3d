"""``shardbench import``: stores results of other benchmark harnesses as rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.cli.args import PRINT, RESULTS_DIR, Key, point_key
from bench.cli.values import FilePath, ListOf
from bench.importers.content import read_file
from bench.importers.formats import FORMATS
from bench.importers.to_rows import USER_KEYS, rows_of
from bench.rows.metrics import METRICS
from bench.rows.store import Store
from engines.core.point import PHASES
from engines.core.row import Row

SUMMARY: Final = "store results of vLLM, optimum-benchmark, InferenceX or MaxText as published rows"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key("data", None, "a file, or a list of files", required=True, kind=ListOf(FilePath())),
    Key("format", "auto", "the file's format; auto detects it", ("auto", *FORMATS)),
    RESULTS_DIR,
    Key("model", None, "the model, one of conf/model"),
    Key("hw", None, "the chip, one of conf/hw"),
    Key("phase", None, "import only this phase of the file", PHASES),
    *(point_key(name) for name in USER_KEYS),
    Key("reference", None, "source of the file, such as a link"),
    PRINT,
)
EXAMPLES: Final[Sequence[str]] = (
    "shardbench import data=latency.json model=llama-3-8b hw=h100-80gb num_chips=1 batch_size=8 input_len=32 "
    "output_len=128 weight_dtype=bfloat16",
    "shardbench import data=benchmark.json model=llama-3-8b reference=https://example.org/run/7",
    "shardbench import data=[agg_a.json,agg_b.json] model=llama-3-70b act_dtype=bfloat16 print=json",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Read every file, then store the new rows, all or none. Returns 0.

    Raises:
        InvalidRequest: a value is missing or contradicts a file.
        ShardbenchError: a file is not JSON, or has no known format.
    """
    found = {
        path: [row for content in read_file(path) for row in rows_of(content, settings)]
        for path in map(Path, settings["data"])
    }
    store = Store(settings["results_dir"])
    known = set(store.latest())
    new: list[Row] = []
    for path, rows in found.items():
        fresh = [row for row in rows if row.point_id not in known]
        known |= {row.point_id for row in fresh}
        new += fresh
        if settings["print"] == "table":
            _print(path, rows, len(fresh), settings["results_dir"])
    if new:
        store.append(new)
    if settings["print"] == "json":
        for row in new:
            print(json.dumps(row.to_dict(), allow_nan=False))
    return 0


def _print(path: Path, rows: Sequence[Row], added: int, results_dir: str) -> None:
    details = rows[0].details
    print(f"{path}: {details['format']}, sha256 {details['sha256'][:12]}")
    for row in rows:
        figures = ", ".join(
            f"{METRICS[name].title} {METRICS[name].show(getattr(row, name))}"
            for name in ("latency_s", "ttft_s", "step_time_s", "tokens_per_s", "mfu")
            if getattr(row, name) is not None
        )
        note = "" if row.valid else f"; not valid: {row.invalid_reason}"
        print(
            f"  {row.model} on {row.num_chips} {row.hw}, {row.phase}, batch {row.batch_size}, {row.input_len} in, "
            f"{row.output_len} out, {row.weight_dtype}: {figures}{note}"
        )
    unmapped = sorted({key for row in rows for key in row.details["unmapped"]})
    if unmapped:
        print(f"  not mapped: {', '.join(unmapped)}")
    stored = len(rows) - added
    duplicates = f", {stored} were already stored" if stored else ""
    print(
        f"  {added} rows added to {results_dir}{duplicates}"
        if added
        else f"  no rows added: {results_dir} already has them"
    )

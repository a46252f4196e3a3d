"""``shardbench import``: stores results of other benchmark harnesses as rows."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.cli.args import PRINT, RESULTS_DIR, Key, point_key
from bench.cli.values import FilePath, ListOf
from bench.importers.formats import FORMATS
from bench.importers.many import Imported, read_files, text_of
from bench.importers.paths import files_of, names_one_file
from bench.importers.to_rows import USER_KEYS
from bench.rows.counted import counted
from bench.rows.metrics import METRICS
from bench.rows.store import Store
from engines.core.errors import ShardbenchError
from engines.core.point_keys import PHASES
from engines.core.row import Row

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SUMMARY: Final = "store results of other benchmark harnesses as published rows"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key(
        "data",
        None,
        "a file, a folder, a pattern such as 'runs/*.json', or a list of them",
        required=True,
        kind=ListOf(FilePath()),
    ),
    Key("format", "auto", "the file's format; auto detects it", ("auto", *FORMATS)),
    RESULTS_DIR,
    Key("model", None, "the model, one of conf/model, or {NAME IN THE FILE: MODEL}"),
    Key("hw", None, "the chip, one of conf/hw, or {NAME IN THE FILE: CHIP}"),
    Key("phase", None, "import only this phase of the file", PHASES),
    *(point_key(name) for name in USER_KEYS),
    Key("reference", None, "source of the file, such as a link"),
    PRINT,
)
EXAMPLES: Final[Sequence[str]] = (
    "shardbench import data=latency.json model=llama-3-8b hw=h100-80gb num_chips=1 batch_size=8 input_len=32 "
    "output_len=128 weight_dtype=bfloat16",
    "shardbench import data=benchmark.json model=llama-3-8b reference=https://example.org/run/7",
    "shardbench import data=runs 'model={acme/llama-8b: llama-3-8b, acme/llama-70b: llama-3-70b}' print=json",
)
MOST_SHOWN: Final = 20
"""Files and refusals that are printed one by one; JSON has all."""
FIGURES: Final = ("latency_s", "ttft_s", "step_time_s", "tpot_s", "tokens_per_s", "mfu")


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Read every file, then store the new rows at once. Returns 0, or 3 if files or results were refused.

    Raises:
        ShardbenchError: the only file is refused, all files are, or the store cannot be written.
    """
    paths = files_of(settings["data"])
    store = Store(settings["results_dir"])
    with _Progress(len(paths)) as progress:
        found = read_files(paths, settings, set(store.latest()), progress.advance)
    if found.refused and names_one_file(settings["data"]):
        raise next(iter(found.refused.values()))
    if found.new:
        store.append(found.new)
    if settings["print"] == "json":
        for row in found.new:
            print(json.dumps(row.to_dict(), allow_nan=False))
        if found.files > 1 or found.left_out:
            print(json.dumps({"summary": found.summary()}))
    else:
        _print(found, settings["results_dir"])
    if found.refused and not found.rows:
        first = text_of(next(iter(found.refused.values())))
        raise ShardbenchError(f"none of the {found.files} files could be imported; the first: {first}")
    return 3 if found.refused or found.left_out else 0


class _Progress:
    """Counts files on stderr: a bar in a terminal, else a line every thousand files."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "_Progress":
        if self._total > 1 and sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=True, redirect_stdout=False)
            self._task = self._bar.add_task("files", total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self) -> None:
        """Count one file."""
        self._done += 1
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)
        elif sys.stderr is not None and self._done % 1000 == 0:
            print(f"{self._done} of {self._total} files read", file=sys.stderr)


def _print(found: Imported, results_dir: str) -> None:
    if found.files <= MOST_SHOWN:
        for path, rows in found.rows.items():
            _print_file(path, rows)
    if found.files > 1:
        summary = found.summary()
        formats = ", ".join(f"{count} {name}" for name, count in summary["formats"].items())
        invalid = summary["rows_not_valid"]
        print(f"{counted(found.files, 'file')} read" + (f": {formats}" if formats else ""))
        if invalid:
            print(f"  new rows that are not valid: {invalid}; shardbench results list shows why")
    already = f", {found.known} already stored" if found.known else ""
    if found.new:
        print(f"  {counted(len(found.new), 'row')} added to {results_dir}{already}")
    else:
        print(f"  no rows added: {results_dir} already has them" if found.known else "  no rows added")
    if found.left_out:
        print(f"  {counted(len(found.left_out), 'result')} left out, which no row can say:")
    for error in found.left_out[:MOST_SHOWN]:
        print(f"    {text_of(error)}")
    if len(found.left_out) > MOST_SHOWN:
        print(f"    … and {len(found.left_out) - MOST_SHOWN} more, all of which print=json lists")
    if found.refused:
        print(f"  {counted(len(found.refused), 'file')} refused:")
    for error in list(found.refused.values())[:MOST_SHOWN]:
        print(f"    {text_of(error)}")
    if len(found.refused) > MOST_SHOWN:
        print(f"    … and {len(found.refused) - MOST_SHOWN} more, all of which print=json lists")


def _print_file(path: Path, rows: Sequence[Row]) -> None:
    details = rows[0].details
    print(f"{text_of(path)}: {details['format']}, sha256 {details['sha256'][:12]}")
    for row in rows:
        figures = ", ".join(
            f"{METRICS[name].title} {METRICS[name].show(getattr(row, name))}"
            for name in FIGURES
            if getattr(row, name) is not None
        )
        note = "" if row.valid else f"; not valid: {row.invalid_reason}"
        lengths = [f"{row.input_len or 'various'} in", f"{row.output_len or 'various'} out"]
        shape = [f"batch {row.batch_size}"] if row.batch_size else []
        if row.phase != "serve":
            lengths = [f"{row.input_len} in", f"{row.output_len} out"]
        shown = ", ".join([row.phase, *shape, *lengths, row.weight_dtype])
        print(text_of(f"  {row.model} on {row.num_chips} {row.hw}, {shown}: {figures}{note}"))
    unstated = [key for key in rows[0].details["unstated"] if key.endswith("dtype")]
    if unstated:
        print(f"  not stated: {', '.join(unstated)}")
    unmapped = sorted({key for row in rows for key in row.details["unmapped"]})
    if unmapped:
        print(text_of(f"  not mapped: {', '.join(unmapped)}"))

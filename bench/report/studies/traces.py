"""The traces of a study's rows: where their files are, and a figure of each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.report.studies.read_trace import LoopIteration, read_turn
from bench.rows.table import Column, Table
from engines.compiled.perfetto import BarKind
from engines.core.errors import ShardbenchError
from engines.core.row import Row

if TYPE_CHECKING:
    from bench.report.render.style import Drawn

HOW_TO_OPEN: Final = "open them at https://ui.perfetto.dev with *Open trace file*"
SHOWN: Final = (
    "The trace figures show one turn of the loop over layers: computation, copies, and both directions of a chip's "
    "links along every axis. Orange is exposed communication; rates are HBM traffic."
)
SHARES: Final = (BarKind.MATMUL, BarKind.OTHER, BarKind.EXPOSED, BarKind.COPY_WAIT)


@dataclass(frozen=True, slots=True)
class Shown:
    """One trace: its row, the name of its program and of its figure, and the turn that it shows."""

    row: Row
    title: str
    figure: str
    turn: LoopIteration

    def cells(self) -> dict[str, Any]:
        """A line of the table: seconds and fractions."""
        stream, turn = self.turn.stream_s(), self.turn
        return {
            "program": self.title,
            "turn_s": turn.seconds,
            "turns": turn.turns * turn.loops,
            "loop_share": turn.seconds * turn.turns * turn.loops / turn.whole_s,
            **{f"{kind}_share": stream[kind] / turn.seconds for kind in SHARES},
            "hidden_share": turn.hidden_permutes(),
            **self._of_limits(),
        }

    def _of_limits(self) -> dict[str, float]:
        """Shares of the memory's bandwidth and of the arithmetic peak that matmuls reach, where the row states both.

        They do the arithmetic that MFU counts, so they reach the MFU divided by their share of the time.
        """
        row, turn = self.row, self.turn
        moved, matmul_s = turn.matmul_bytes_per_s(), turn.stream_s()[BarKind.MATMUL] * turn.turns * turn.loops
        if moved is None or not row.hbm_bytes_per_s or row.mfu is None or len(row.details.get("traces", {})) > 1:
            return {}
        return {"bandwidth_share": moved / row.hbm_bytes_per_s, "peak_share": row.mfu * turn.whole_s / matmul_s}


@dataclass(frozen=True, slots=True)
class Traces:
    """The traces of some rows. ``text`` says where the files are, or how to make those that are missing."""

    shown: Sequence[Shown] = ()
    text: str = ""

    @property
    def table(self) -> Table | None:
        """Where the time of each turn goes; None without traces."""
        if not self.shown:
            return None
        return Table(
            name="study_targets_turns",
            caption="One turn of the loop over layers",
            columns=[
                Column("program"),
                Column("turn_s", "turn (µs)", 1e6, ".3g"),
                Column("turns", "turns", 1.0, ",.0f"),
                Column("loop_share", "all turns, of the program (%)", 100.0, ".1f"),
                Column(f"{BarKind.MATMUL}_share", "matmuls (%)", 100.0, ".1f"),
                Column(f"{BarKind.OTHER}_share", "other computation (%)", 100.0, ".1f"),
                Column(f"{BarKind.EXPOSED}_share", "exposed communication (%)", 100.0, ".1f"),
                Column(f"{BarKind.COPY_WAIT}_share", "copy waits (%)", 100.0, ".1f"),
                Column("hidden_share", "permutes overlapped (%)", 100.0, ".1f"),
                Column("bandwidth_share", "matmuls: of HBM bandwidth (%)", 100.0, ".0f"),
                Column("peak_share", "matmuls: of peak (%)", 100.0, ".0f"),
            ],
            rows=[each.cells() for each in self.shown],
        )

    def draw(self) -> "list[Drawn]":
        """A figure for each trace, but one for those whose turns differ only in the number of steps around them."""
        from bench.report.studies.figure_iteration import turn

        first = {_without_lengths(each.row): each for each in reversed(self.shown)}
        chosen = [each for each in self.shown if first[_without_lengths(each.row)] is each]
        return [turn(each.figure, f"Trace of {each.title}.", each.turn) for each in chosen]


@dataclass(frozen=True, slots=True)
class Places:
    """Folder of the trace files, and folder of the text that links to them."""

    traces: Path
    out: Path

    def link(self, name: str) -> str:
        """Relative path from the text to a trace file."""
        return Path(os.path.relpath(self.traces / name, self.out)).as_posix()


@dataclass(slots=True)
class _Listed:
    links: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def traces_of(rows: Sequence[Row], places: Places, recipe: str) -> Traces:
    """The traces of compiled rows, in their order. A file that is missing or cannot be read has no figure."""
    shown, listed = list[Shown](), _Listed()
    for row in (row for row in rows if row.status == "ok"):
        names = row.details.get("traces") or {row.phase: None}
        for phase, name in names.items():
            title = _title(row, phase)
            if name is None or not (places.traces / name).is_file():
                listed.absent.append(title)
                continue
            try:
                turn = read_turn(places.traces / name)
            except ShardbenchError as error:
                listed.refused.append(str(error))
                continue
            sizes = f"b{row.batch_size}_i{row.input_len}_o{row.output_len}"
            figure = "_".join(["trace", phase, sizes, str(row.ffn_layout), str(row.collectives), row.weight_dtype])
            layout = f"{row.ffn_layout}, collectives={row.collectives}"
            shown.append(Shown(row, f"{title}, {layout}", figure, turn))
            listed.links.append(f"- [{title}]({places.link(name)})")
    return Traces(shown, _text(listed, places.traces, recipe))


def _without_lengths(row: Row) -> tuple[Any, ...]:
    context = row.input_len + row.output_len
    return (row.model, row.phase, row.batch_size, context, row.ffn_layout, row.collectives, row.weight_dtype)


def _title(row: Row, phase: str) -> str:
    out = "" if phase == "prefill" else f", {row.output_len} out"
    return f"{phase}, batch {row.batch_size}, {row.weight_dtype}, {row.input_len} tokens in{out}"


def _text(listed: _Listed, folder: Path, recipe: str) -> str:
    parts = []
    if listed.links:
        parts.append("\n".join([f"Traces of the whole programs ({HOW_TO_OPEN}):\n", *listed.links]))
        parts.append(SHOWN)
    if listed.absent:
        command = f"shardbench run +sweep={recipe} resume=false results_dir={folder.parent} engine.trace_dir={folder}"
        parts.append(f"Trace files are missing of {'; '.join(listed.absent)}; `{command}` makes them.")
    return "\n\n".join([*parts, *listed.refused])

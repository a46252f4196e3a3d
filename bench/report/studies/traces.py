"""The traces of a study's rows: where their files are, and a figure of each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.report.studies.read_trace import LoopIteration, read_turn
from engines.compiled.perfetto import BarKind
from engines.core.errors import ShardbenchError
from engines.core.row import Row

if TYPE_CHECKING:
    from bench.report.render.style import Drawn

HOW_TO_OPEN: Final = "open them at https://ui.perfetto.dev with *Open trace file*"
SHOWN: Final = (
    "Below is one turn of the loop over layers of each: what computes, what is copied, and both directions of a chip's "
    "links along every axis. Orange is time in which nothing computes, and rates are HBM traffic."
)


@dataclass(frozen=True, slots=True)
class Shown:
    """One trace: what stands under its figure, the name of that, and the turn that it shows."""

    caption: str
    figure: str
    turn: LoopIteration


@dataclass(frozen=True, slots=True)
class Traces:
    """The traces of some rows. ``text`` says where the files are, or how to make those that are not there."""

    shown: Sequence[Shown] = ()
    text: str = ""

    def draw(self) -> "list[Drawn]":
        """A figure a trace."""
        from bench.report.studies.figure_iteration import turn

        return [turn(each.figure, each.caption, each.turn) for each in self.shown]


@dataclass(frozen=True, slots=True)
class Places:
    """Where trace files lie, and where the text that names them is written."""

    traces: Path
    out: Path

    def link(self, name: str) -> str:
        """From the text to a trace file."""
        return Path(os.path.relpath(self.traces / name, self.out)).as_posix()


@dataclass(slots=True)
class _Listed:
    links: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def traces_of(rows: Sequence[Row], places: Places, recipe: str) -> Traces:
    """The traces of compiled rows, in their order. A file that is absent or cannot be read has no figure."""
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
            shown.append(Shown(f"{title}, {layout}. {turn.summary()}{_limits(row, turn)}", figure, turn))
            listed.links.append(f"- [{title}]({places.link(name)})")
    return Traces(shown, _text(listed, places.traces, recipe))


def _title(row: Row, phase: str) -> str:
    out = "" if phase == "prefill" else f", {row.output_len} out"
    return f"{phase}, batch {row.batch_size}, {row.weight_dtype}, {row.input_len} tokens in{out}"


def _limits(row: Row, turn: LoopIteration) -> str:
    """How near matmuls come to the memory's bandwidth and to the arithmetic peak, where the row states both.

    They do the arithmetic that MFU counts, so they reach the MFU divided by their share of the time.
    """
    moved, products_s = turn.matmul_bytes_per_s(), turn.stream_s()[BarKind.MATMUL] * turn.turns * turn.loops
    if moved is None or not row.hbm_bytes_per_s or row.mfu is None or len(row.details.get("traces", {})) > 1:
        return ""
    drawn, reached = moved / row.hbm_bytes_per_s, row.mfu * turn.whole_s / products_s
    return f" Matmuls draw {drawn:.0%} of the memory's bandwidth and reach {reached:.0%} of the arithmetic peak."


def _text(listed: _Listed, folder: Path, recipe: str) -> str:
    parts = []
    if listed.links:
        parts.append("\n".join([f"The traces of the whole programs ({HOW_TO_OPEN}):\n", *listed.links]))
        parts.append(SHOWN)
    if listed.absent:
        command = f"shardbench run +sweep={recipe} resume=false results_dir={folder.parent} engine.trace_dir={folder}"
        parts.append(f"No trace file is there of {'; '.join(listed.absent)}. `{command}` makes them.")
    return "\n\n".join([*parts, *listed.refused])

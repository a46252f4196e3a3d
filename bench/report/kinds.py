"""Which reports are there, what does each need, and who makes it?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.storage.place import folder_beside
from engines.core.row import Row

if TYPE_CHECKING:
    from bench.report.claims.checks import Check
    from bench.report.paper.closed_forms import ContextLimit
    from bench.report.render.document import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a report is made of: the rows of ``stores``, and the folder ``out`` under which it is written."""

    rows: Sequence[Row]
    stores: Sequence[str]
    out: Path
    title: str | None

    def titled(self, usual: str) -> str:
        """The heading that the user gave, or the usual one."""
        return self.title or usual


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A report, and what was checked beside it: claims, and entries of the paper's Table 1.

    ``rows`` are those that it shows, where it reads others than those of the stores.
    """

    document: "Document"
    checks: "Sequence[Check]" = ()
    entries: "Sequence[ContextLimit]" = ()
    rows: Sequence[Row] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A report by name. ``folder`` is where under ``out`` it is written.

    ``needs``: ``rows`` of stores that are there, ``none`` where the report has something to say without any, or
    ``nights``, which it reads by itself.
    """

    summary: str
    make: Callable[[Asked], Made]
    folder: str = ""
    needs: str = "rows"


def _whole(asked: Asked) -> Made:
    from bench.report.main.sections import full_report

    return Made(document=full_report(asked.rows, asked.titled("shardbench report")))


def _comparison(asked: Asked) -> Made:
    from bench.report.main.sections import comparison_report

    document, checks = comparison_report(asked.rows, asked.titled("The comparison with FasterTransformer"))
    return Made(document=document, checks=checks)


def _paper(asked: Asked) -> Made:
    from bench.report.paper.report import paper_report

    document, entries = paper_report(asked.titled("Pope et al. 2022 reproduced"), asked.rows)
    return Made(document=document, entries=entries)


def _compiler(asked: Asked) -> Made:
    from bench.report.compiler.report import compiler_report, nights_of

    nights = [night for each in asked.stores for night in nights_of(folder_beside(each))]
    document = compiler_report(nights, asked.titled("The same programs under releases of their compiler"))
    return Made(document=document, rows=[row for night in nights for row in night.rows])


def _of(room: str, title: str) -> Callable[[Asked], Made]:
    """The report of a room: ``ROOM_report`` of its module ``report``, of rows and a heading."""

    def make(asked: Asked) -> Made:
        report = getattr(import_module(f"bench.report.{room}.report"), f"{room}_report")
        return Made(document=report(asked.rows, asked.titled(title)))

    return make


def _studies(asked: Asked) -> Made:
    from bench.report.studies.read_trace import FOLDER
    from bench.report.studies.report import studies_report
    from bench.report.studies.traces import Places

    folders = [Path(folder_beside(each)) / FOLDER for each in asked.stores]
    places = Places(next((each for each in folders if each.is_dir()), folders[0]), asked.out / "studies")
    return Made(document=studies_report(asked.rows, asked.titled("The studies of compiled programs"), places))


WHOLE: Final = Kind(summary="latency and MFU tables, figures and findings", make=_whole)
KINDS: Final[Mapping[str, Kind]] = {
    "comparison": Kind(
        summary="PaLM 540B and MT-NLG 530B on 64 TPU v4 against FasterTransformer; exit code 1 if a claim fails",
        make=_comparison,
        folder="comparison",
    ),
    "paper": Kind(
        summary="tables and figures of Pope et al. 2022 from all kinds of evidence; exit code 1 if Table 1 differs",
        make=_paper,
        folder="paper",
        needs="none",
    ),
    "compiler": Kind(
        summary="what each release of a compiler did to the same programs, from nights (+sweep=compiler-nightly)",
        make=_compiler,
        folder="compiler",
        needs="nights",
    ),
    "operators": Kind(
        summary="what a compiler that partitions made of each operator, and Alpa's plans (+sweep=operators)",
        make=_of("operators", "What compilers make of a layer's operators"),
        folder="operators",
    ),
    "field": Kind(
        summary="latency against cost of every system that the paper names (+sweep=field, field-measured)",
        make=_of("field", "Every system of the field, on the same chips"),
        folder="field",
    ),
    "offload": Kind(
        summary="the cheapest token with weights or cache off the chip (+sweep=study-offload), and what streaming did",
        make=_of("offload", "Weights and cache outside the chip"),
        folder="offload",
    ),
    "packing": Kind(
        summary="padded over packed times of prompts of different lengths, beside their bounds (+sweep=packing)",
        make=_of("packing", "What padding costs"),
        folder="packing",
    ),
    "megatron": Kind(
        summary="Megatron beside FasterTransformer, published and predicted, and pipelines measured (+sweep=megatron)",
        make=_of("megatron", "Megatron beside FasterTransformer"),
        folder="megatron",
    ),
    "studies": Kind(
        summary="figure, table and finding of every study (+sweep=study-...), from compiled rows",
        make=_studies,
        folder="studies",
    ),
}
"""Reports of fixed content, by the verb that asks for them; without a verb it is :data:`WHOLE`."""

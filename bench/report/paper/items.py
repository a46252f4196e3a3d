"""The tables and figures of the paper that have rows: their recipes, what makes their rows, and how each is shown."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.report.paper.answers import FIGURES, SOURCES, Answers, Asked, ask
from bench.report.paper.figure_cost import cost_over_latency
from bench.report.paper.side_by_side import COST, MFU, SECONDS, STEP_MS, Shown
from bench.report.studies.figures import lines_over
from bench.rows.labels import answered
from engines.core.point import Point
from engines.core.row import Row

if TYPE_CHECKING:
    from bench.report.render.style import Drawn

TABLES: Final = "paper-tables"
LENGTHS: Final = {20: "D.2", 60: "D.3", 128: "D.4"}
"""Tokens of the prompt → the table of the paper's appendix."""
Also = Sequence[tuple[str, Callable[[Answers], Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A table or figure of the paper. ``compiled_by`` are the commands that make its compiled rows.

    ``holds`` says which questions of its recipe are its own. ``draw`` draws its rows with a caption.
    """

    name: str
    title: str
    about: str
    recipe: str
    shown: Sequence[Shown]
    holds: Callable[[Point], bool] = lambda _: True
    variants: Sequence[Sequence[str]] = ((),)
    compiled_by: Sequence[str] = ()
    also: Also = ()
    draw: "Callable[[Sequence[Row], str], Drawn] | None" = None

    @property
    def commands(self) -> list[str]:
        """What makes its rows: those that are published or predicted, then those that are compiled."""
        return [*(" ".join(["shardbench run", f"+sweep={self.recipe}", *words]) for words in self.variants),
                *self.compiled_by]  # fmt: skip


def asked_of(items: Sequence[Item], rows: Sequence[Row]) -> dict[str, Asked]:
    """The answers to each item's questions, by its name; a recipe of several items is asked once."""
    of_recipe: dict[str, Asked] = {}
    found = {}
    for item in items:
        if item.recipe not in of_recipe:
            of_recipe[item.recipe] = ask(item.recipe, rows, item.variants)
        whole = of_recipe[item.recipe]
        found[item.name] = Asked([each for each in whole.answers if item.holds(each.point)], whole.anew)
    return found


def drawable(asked: Asked, figure: str) -> list[Row]:
    """The rows with a valid and finite figure, and those that do not fit in memory."""
    rows = [row for source in SOURCES for row in asked.rows(source)]
    return [row for row in rows if row.status == "oom" or (answered(row) and _is_positive(FIGURES[figure](row)))]


def _is_positive(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _chips(rows: Sequence[Row], caption: str) -> "Drawn":
    return lines_over(
        "figure6_step_over_chips", caption, rows, panel=lambda _: "decode step, PaLM 540B, batch 512",
        line=lambda row: str(row.ffn_layout), x=lambda row: row.num_chips, x_label="chips", mfu=False,
    )  # fmt: skip


def _prefill(rows: Sequence[Row], caption: str) -> "Drawn":
    return lines_over(
        "figure7_mfu_over_tokens", caption, rows, panel=lambda _: "prefill, PaLM 540B on 64 TPU v4",
        line=lambda row: str(row.ffn_layout), x=lambda row: row.batch_size * row.input_len,
        x_label="batch (tokens)", mfu=True,
    )  # fmt: skip


def _context(rows: Sequence[Row], caption: str) -> "Drawn":
    return lines_over(
        "figure8_step_over_context", caption, rows, panel=lambda _: "decode step, 8 layers, batch 256",
        line=lambda row: variant(row.model, row.attn_sharding), x=lambda row: row.input_len + row.output_len,
        x_label="context (tokens)", mfu=False,
    )  # fmt: skip


def variant(model: str, attn_sharding: Any) -> str:
    """Of figure 8: ``multiquery, by batch``."""
    return f"{'multihead' if 'multihead' in model else 'multiquery'}, by {attn_sharding}"


def _attention(answers: Answers) -> str:
    return variant(answers.point.model.name, answers.point.attn_sharding)


ITEMS: Final = (
    Item(
        name="table2",
        title="Table 2: PaLM 540B on 64 TPU v4",
        about="The paper's example workloads, and the two decode steps of its section 4.4.",
        recipe=TABLES,
        holds=lambda point: point.model.name == "palm-540b" and point.input_len not in LENGTHS,
        compiled_by=["shardbench run +sweep=paper-table2 engine=compiled"],
        shown=[SECONDS, MFU],
    ),
    Item(
        name="table3",
        title="Table 3: PaLM 62B on 8, 16 and 32 TPU v4",
        about="The same workloads on fewer chips.",
        recipe=TABLES,
        holds=lambda point: point.model.name == "palm-62b",
        shown=[SECONDS, MFU],
    ),
    *(
        Item(
            name=f"table_{number.lower().replace('.', '')}",
            title=f"Table {number}: prompts of {tokens} tokens",
            about="PaLM 540B and MT-NLG 530B on 64 TPU v4, and FasterTransformer's MT-NLG 530B on A100.",
            recipe=TABLES,
            holds=lambda point, tokens=tokens: point.input_len == tokens,  # type: ignore[misc]
            shown=[SECONDS, MFU],
        )
        for tokens, number in LENGTHS.items()
    ),
    Item(
        name="figure1",
        title="Figure 1: cost against latency",
        about="PaLM 8B, 62B and 540B over chips and batch, at a context of 2048 tokens.",
        recipe="paper-figure1",
        compiled_by=["shardbench run +sweep=study-weights", "shardbench run +sweep=study-1d-2d"],
        shown=[STEP_MS, COST],
        draw=cost_over_latency,
    ),
    Item(
        name="figure6",
        title="Figure 6: 1D against 2D over chips",
        about="A decode step of PaLM 540B at batch 512.",
        recipe="paper-figure6",
        compiled_by=["shardbench run +sweep=study-1d-2d"],
        shown=[STEP_MS],
        draw=_chips,
    ),
    Item(
        name="figure7",
        title="Figure 7: weight-stationary against weight-gathered prefill",
        about="Prompts of 2048 tokens of PaLM 540B on 64 TPU v4.",
        recipe="paper-figure7",
        compiled_by=["shardbench run +sweep=study-prefill"],
        shown=[MFU, SECONDS],
        draw=_prefill,
    ),
    Item(
        name="figure8",
        title="Figure 8: attention over context",
        about="A decode step of 8 layers of PaLM 540B at batch 256; the paper prints no number of this figure.",
        recipe="paper-figure8",
        variants=((), ("model=palm-540b-multihead",)),
        compiled_by=[
            "shardbench run +sweep=study-attention",
            "shardbench run +sweep=study-attention model=palm-540b-multihead",
        ],
        also=[("attention", _attention)],
        shown=[STEP_MS],
        draw=_context,
    ),
)  # fmt: skip

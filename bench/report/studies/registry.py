"""The studies: each sweep recipe of compiled points, what it shows and how, and what the paper says of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench.report.studies import findings as found
from bench.report.studies.gpus import bounds_below_published
from bench.report.studies.held_back import held_back
from bench.report.studies.shapes import Bars, Lines, Rooflines, Shape
from bench.report.studies.speedups import SpeedUps, best_speed_ups
from bench.rows.labels import model_label
from engines.core.row import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One recipe. ``variants`` are overrides with which it runs as well; ``paper`` is what Pope et al. 2022 say.

    ``traced``: its rows have traces, of which the report shows one turn of the loop over layers. ``published_s``
    returns the published time of a row's point, for two columns of the table, and ``notes`` a paragraph on the rows.
    """

    recipe: str
    title: str
    paper: str
    shape: Shape
    find: Callable[[Sequence[Row]], found.Found | None]
    variants: Sequence[Sequence[str]] = ((),)
    has_mfu: bool = True
    traced: bool = False
    published_s: Callable[[Row], float | None] | None = None
    notes: Callable[[Sequence[Row]], str] | None = None

    @property
    def command(self) -> str:
        """The command that makes its rows."""
        words = (" ".join(["shardbench run", f"+sweep={self.recipe}", *each]) for each in self.variants)
        return " && ".join(words)


def _model(row: Row) -> str:
    return model_label(row.model.partition("+")[0])


def _workload(row: Row) -> str:
    return f"{row.phase}, batch {row.batch_size}"


def _attention(row: Row) -> str:
    heads = "multihead" if "multihead" in row.model else "multiquery"
    return f"{heads}, by {row.attn_sharding}"


def _cached(row: Row) -> str:
    """What is cached, and over what attention is split."""
    over = "on every chip" if row.attn_sharding == "replicated" else f"by {row.attn_sharding}"
    return f"{_model(row)}, {over}"


def _block(row: Row) -> str:
    return "serial" if "serial" in row.model else "parallel"


def _variant(row: Row) -> str:
    return "GSPMD" if row.partitioner == "gspmd" else str(row.collectives)


def _maker(row: Row) -> str:
    """Whose program it is."""
    if row.engine != "compiled":
        return row.engine
    return "GSPMD" if row.partitioner == "gspmd" else "shardbench"


def _served(row: Row) -> str:
    work = f"batch {row.batch_size}" if row.phase == "decode" else f"{row.phase} of {row.input_len}"
    return f"{_model(row)}\n{row.hw}, {work}"


def _timed_workload(row: Row) -> str:
    return f"{row.phase}, batch\n{row.batch_size}, {row.weight_dtype}"


def _length(row: Row) -> str:
    if row.phase == "prefill":
        return f"{row.input_len} tokens"
    return "one step" if row.output_len == 1 else f"{row.output_len} steps"


STUDIES: Final = (
    Study(
        recipe="study-targets",
        title="Against the paper's own figures",
        paper="28.5 ms a decode step at batch 64 (int8), 93.75 ms at batch 512, 85.2 s for the prefill at batch 512",
        find=found.against_published,
        traced=True,
        notes=held_back,
        published_s=found.published_s,
        shape=Bars(panel=_timed_workload, bar=_length, panel_label="workload", published_s=found.published_s),
    ),
    Study(
        recipe="study-1d-2d",
        title="1D against 2D over chips",
        paper="in figure 6, 2D is faster from 64 chips on, and 1D hardly gains from more chips",
        find=found.layouts_over_chips,
        shape=Lines(
            panel=_model,
            line=lambda row: str(row.ffn_layout),
            x=lambda row: row.num_chips,
            x_label="chips",
        ),
    ),
    Study(
        recipe="study-prefill",
        title="Prefill over tokens",
        paper="in figure 7, a weight-gathered layout reaches 76% MFU at 1M tokens; ws_2d wins at small batches",
        find=found.prefill_layouts,
        shape=Lines(
            panel=_model,
            line=lambda row: str(row.ffn_layout),
            x=lambda row: row.batch_size * row.input_len,
            x_label="batch (tokens)",
            mfu=True,
        ),
    ),
    Study(
        recipe="study-attention",
        title="Attention over context",
        paper=(
            "in figure 8, multiquery attention sharded over the batch reaches 32768 tokens, and attention is 8–31% of "
            "its step at 8192–32768; sharded over heads, or multihead, it grows faster or does not fit"
        ),
        find=partial(found.attention_over_context, line=_attention),
        variants=((), ("model=palm-540b-multihead",)),
        has_mfu=False,  # its points have 8 layers, and MFU counts the parameters of the whole model
        shape=Lines(
            panel=lambda row: "8 layers of PaLM 540B",
            line=_attention,
            x=lambda row: row.input_len + row.output_len,
            x_label="context (tokens)",
        ),
    ),
    Study(
        recipe="study-context",
        title="One sequence to a million tokens",
        paper="it stops at 32768 tokens; attention over the sequence, latent vectors and windows came after it",
        find=partial(found.sequence_over_heads, line=_cached),
        has_mfu=False,  # one token a step
        shape=Lines(
            panel=lambda row: f"{row.num_chips} × {row.hw}, batch {row.batch_size}",
            line=_cached,
            x=lambda row: row.input_len + row.output_len,
            x_label="context (tokens)",
            memory=True,
        ),
    ),
    Study(
        recipe="study-block",
        title="Serial against parallel block",
        paper="a serial block costs 14% more per decode step at batch 512",
        find=found.serial_over_parallel,
        shape=Bars(panel=_workload, bar=_block, panel_label="workload"),
    ),
    Study(
        recipe="study-collectives",
        title="Overlapped, plain and compiler-partitioned collectives",
        paper=(
            "looped collective einsums are about 1.4 times as fast as GSPMD, and some weight-gathered layouts need "
            "them to fit"
        ),
        find=partial(found.overlapped_plain_gspmd, panel=_workload),
        shape=Bars(panel=_workload, bar=_variant, panel_label="workload"),
    ),
    Study(
        recipe="study-weights",
        title="int8 against bfloat16 weights",
        paper="28.5 ms a decode step with int8 and 36.9 ms with bfloat16 at batch 64",
        find=found.int8_over_bfloat16,
        shape=Lines(
            panel=lambda row: row.phase,
            line=lambda row: row.weight_dtype,
            x=lambda row: row.batch_size,
            x_label="batch",
        ),
    ),
    Study(
        recipe="study-generations",
        title="64 chips of every generation",
        paper="TPU v4 alone",
        find=found.generations,
        shape=Bars(panel=_model, bar=lambda row: row.hw, panel_label="model"),
    ),
    Study(
        recipe="study-peers",
        title="Other serving stacks under the same compiler",
        paper="it is older than they are",
        find=partial(found.against_peers, panel=_served),
        shape=Bars(panel=_served, bar=_maker, panel_label="workload"),
    ),
    Study(
        recipe="study-speculative",
        title="Speculative decoding over the acceptance rate",
        paper="it decodes one token a step; speculative decoding was published in the same month",
        find=best_speed_ups,
        has_mfu=False,  # MFU counts generated tokens alone
        shape=SpeedUps(),
    ),
    Study(
        recipe="study-gpu",
        title="GPUs at their rooflines",
        paper="it compares its TPUs with FasterTransformer's published A100 times, as the table here does",
        find=bounds_below_published,
        published_s=found.published_s,
        shape=Rooflines(published_s=found.published_s),
    ),
)

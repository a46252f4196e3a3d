"""The rows of a report, their order and their labels."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bench.rows.methods import method_label
from engines.core.errors import ShardbenchError
from engines.core.row import PROGRAM, Row

SOURCES: Final = ("measured", "compiled", "predicted", "published")
"""The kinds of evidence, in the order of the tables."""

MODEL_NAMES: Final = {
    "palm-8b": "PaLM 8B",
    "palm-62b": "PaLM 62B",
    "palm-540b": "PaLM 540B",
    "palm-540b-multihead": "PaLM 540B multihead",
    "mt-nlg-530b": "MT-NLG 530B",
    "gpt-20b": "GPT 20B",
    "gpt-89b": "GPT 89B",
    "gpt-175b": "GPT 175B",
    "bert-6b": "BERT 6B",
    "opt-175b": "OPT 175B",
    "llama-2-70b": "Llama 2 70B",
    "llama-3-8b": "Llama 3 8B",
    "llama-3-70b": "Llama 3 70B",
    "llama-3-70b-multihead": "Llama 3 70B multihead",
    "llama-3-405b": "Llama 3 405B",
    "palm-switch-16x62b": "PaLM Switch 16×62B",
    "mixtral-8x7b": "Mixtral 8×7B",
    "mixtral-8x22b": "Mixtral 8×22B",
    "qwen3-30b-a3b": "Qwen3 30B-A3B",
    "qwen3-235b-a22b": "Qwen3 235B-A22B",
    "gpt-oss-20b": "gpt-oss 20B",
    "gpt-oss-120b": "gpt-oss 120B",
    "deepseek-v3": "DeepSeek V3",
    "kimi-k2": "Kimi K2",
    "gemma-3-12b": "Gemma 3 12B",
    "gemma-3-27b": "Gemma 3 27B",
    "gemma-3-27b-full": "Gemma 3 27B without windows",
}


def read_rows(*results_dirs: str, price: str = "none") -> list[Row]:
    """The newest row of every point in one or several stores, in an order that depends only on the rows.

    They have energy, and dollars by the prices of :func:`bench.rows.prices.load_prices`.

    Raises:
        ShardbenchError: the stores are empty.
    """
    from bench.rows.at_read import at_read
    from bench.rows.prices import load_prices
    from bench.rows.standing import standing_rows
    from bench.rows.store import Store

    stored = [row for folder in results_dirs for row in Store(folder).load()]
    # Stable, so that rows of one store and moment keep their order.
    rows = in_order(standing_rows(sorted(stored, key=lambda row: row.created_at)).values())
    if not rows:
        where = results_dirs[0] if len(results_dirs) == 1 else f"[{','.join(results_dirs)}]"
        raise ShardbenchError(f"results_dir={where}: holds no rows; run shardbench run first, or use another store")
    return at_read(rows, load_prices(price))


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows sorted by their point."""
    return sorted(rows, key=sort_key)


def sort_key(row: Row) -> tuple[Any, ...]:
    """The sort key of rows: model, hardware, phase, lengths, dtypes, chips, batch, method, layout, source, engine."""
    return (
        *(row.model, row.hw, row.phase, row.input_len, row.output_len, row.weight_dtype, row.act_dtype, row.kv_dtype),
        *(row.weight_group_size or 0, row.head_dtype or ""),
        *(row.num_chips, row.pipeline_parallel or 0, row.tensor_parallel or 0, row.batch_size, method_label(row)),
        *(row.ffn_layout or "", row.attn_sharding or "", row.collectives or "", row.partitioner or ""),
        *(str(row.mesh_shape or ""), SOURCES.index(row.source), row.engine, row.runtime or ""),
        *(row.reference or "", row.point_id),
    )


def answered(row: Row) -> bool:
    """Whether the row has a valid time."""
    return row.status == "ok" and row.valid and row.latency_s is not None


def system_label(row: Row) -> str:
    """Model and hardware: ``PaLM 540B on 64 tpu-v4``, ``MT-NLG 530B on 16 a100-80gb, TP16``."""
    label = f"{model_label(row.model)} on {row.num_chips} {row.hw}"
    if row.tensor_parallel is None:
        return label
    return f"{label}, {parallelism(row.tensor_parallel, row.pipeline_parallel)}"


def parallelism(tensor_parallel: int, pipeline_parallel: int | None) -> str:
    """``TP16``, or ``PP3/TP8`` with pipeline stages."""
    return f"TP{tensor_parallel}" if (pipeline_parallel or 1) == 1 else f"PP{pipeline_parallel}/TP{tensor_parallel}"


def model_label(model: str) -> str:
    """The model's name as its authors write it, or else its choice in ``conf/model``."""
    return MODEL_NAMES.get(model, model)


def evidence_label(source: str, engine: str) -> str:
    """``predicted (analytic)``; ``compiled`` where the engine is called as its kind of evidence."""
    return source if source == engine else f"{source} ({engine})"


def layout_label(row: Row) -> str:
    """Feed-forward layout and attention sharding: ``ws_2d, attention by batch``; empty if both are auto or None."""
    parts = [] if row.ffn_layout in (None, "auto") else [str(row.ffn_layout)]
    if row.attn_sharding not in (None, "auto"):
        parts.append(f"attention by {row.attn_sharding}")
    return ", ".join(parts)


def point_label(row: Row) -> str:
    """The point as text: ``palm-540b on 64 tpu-v4, decode, batch 64, 1984 in, 64 out, int8, pruning=2:4``; of a
    program that somebody else wrote, its name and slice.
    """
    if row.phase == PROGRAM:
        return f"{row.model} on {row.num_chips} {row.hw}, {row.phase}"
    lengths = f"{row.input_len} in" + (f", {row.output_len} out" if row.output_len else "")
    where = f"{row.num_chips} {row.hw}"
    method = method_label(row)
    words = f"{row.model} on {where}, {row.phase}, batch {row.batch_size}, {lengths}, {row.weight_dtype}"
    return f"{words}, {method}" if method else words


def counted(items: Iterable[str]) -> str:
    """``3 oom, 1 failed``: the count of each item, the most frequent first."""
    return ", ".join(
        f"{count} {item}" for item, count in sorted(Counter(items).items(), key=lambda each: (-each[1], each[0]))
    )


def by_source(rows: Sequence[Row], source: str) -> list[Row]:
    """The rows of one kind of evidence."""
    return [row for row in rows if row.source == source]

"""Which system or method of the field is a row, of which kind, and what does it do to the model's text?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bench.rows.labels import model_label
from engines.core.dtypes import ACTIVATION_DTYPES
from engines.core.row import Row
from engines.core.text import significant

SWEEPS: Final = ("field", "field-measured")
RUNTIMES: Final[Mapping[str, str]] = {
    "fastertransformer": "FasterTransformer",
    "megatron": "NeMo Megatron",
    "deepspeed": "DeepSpeed Inference",
    "tensorrt-llm": "TensorRT-LLM",
    "vllm": "vLLM",
    "torch-eager": "PyTorch eager",
}
OURS: Final = ("xla", "xla-2022", "auto", "best", None)
"""Runtimes that run the paper's layouts on a TPU."""


def of_field(rows: list[Row]) -> list[Row]:
    """The rows of the sweeps of the field."""
    return [row for row in rows if row.sweep in SWEEPS]


def system_of(row: Row) -> str:
    """The name under which a row stands: the first of :data:`RULES` that it meets, or its runtime, or the paper's."""
    for name, meets in RULES.items():
        if (found := meets(row)) is not None:
            return f"{name} ({found})" if found else name
    if row.source == "published" and row.system:
        return f"{row.system}, published"
    name = RUNTIMES.get(row.runtime or "", row.runtime or "")
    if row.engine == "torch":
        name = "PyTorch, tensor parallel"
    elif row.runtime in OURS:
        name = "best known stack" if row.runtime == "best" and row.tensor_parallel is not None else "Pope et al. 2022"
    return name if row.weight_dtype in ACTIVATION_DTYPES else f"{name}, {row.weight_dtype}"


def _asked(row: Row, key: str) -> Any:
    """A value that was asked for, and is not the key's default."""
    value = getattr(row, key, None)
    return None if value in (None, "none", "auto", "equal", "padded", "manual") or key in row.chosen else value


def _speculative(row: Row) -> str | None:
    if (how := _asked(row, "speculative")) is None:
        return None
    draft = getattr(row, "draft_model", None)
    by = model_label(draft) if how == "draft" and draft else how
    if row.acceptance_rate is None or row.source == "measured":  # each measured row has a rate of its own
        return str(by)
    return f"{by}, {row.acceptance_rate:.0%} accepted"


def _early_exit(row: Row) -> str | None:
    threshold = _asked(row, "exit_threshold")
    if threshold is None:
        return None
    return f"from {threshold:g}" + (
        f", {row.exit_rate:.0%} leave" if row.exit_rate is not None and row.source != "measured" else ""
    )


def _packing(row: Row) -> str | None:
    lengths = _asked(row, "lengths")
    return None if lengths is None else f"{row.padding}, {lengths} lengths"


def _key(key: str) -> Callable[[Row], str | None]:
    return lambda row: None if (value := _asked(row, key)) is None else str(value)


def _other_model(*words: str) -> Callable[[Row], str | None]:
    def told(row: Row) -> str | None:
        if not any(word in row.model for word in words):
            return None
        named = row.source != "measured" and row.runtime not in OURS
        runtime = RUNTIMES.get(row.runtime or "", row.runtime) if named else None
        rounded = row.weight_dtype if row.weight_dtype not in ACTIVATION_DTYPES else None
        return ", ".join(filter(None, (model_label(row.model), runtime, rounded)))

    return told


def _planned(row: Row) -> str | None:
    return None if _asked(row, "planner") is None and _asked(row, "shardings") is None else ""


def _by_compiler(row: Row) -> str | None:
    return "" if row.partitioner == "gspmd" and row.engine != "published" else None


def _megatron(row: Row) -> str | None:
    tensor_parallel_alone = row.runtime in ("xla", "xla-2022", "best") and row.ffn_layout == "ws_1d"
    asked = tensor_parallel_alone and "ffn_layout" not in row.chosen and row.source != "published"
    return "" if row.runtime == "megatron" or asked or _asked(row, "sequence_parallel") else None


RULES: Final[Mapping[str, Callable[[Row], str | None]]] = {
    "Speculative decoding": _speculative,
    "Early exit": _early_exit,
    "EffectiveTransformer": _packing,
    "ZeRO-Inference": _key("offload"),
    "Pruned": _key("pruning"),
    "Alpa": _planned,
    "GSPMD": _by_compiler,
    "NeMo Megatron": _megatron,
    # Last: of a sweep over such a model alone, every system above is told apart all the same.
    "Sparse": _other_model("switch", "mixtral", "mixture"),
    "Distilled": _other_model("palm-62b", "llama-3-8b", "student"),
    "Multihead attention": _other_model("multihead"),
}
"""Name of a system → what a row of it is called besides, "" for nothing, None where the row is none of it."""
STACKS: Final = "Partitioning and stacks"
FORMATS: Final = "Number formats"
FAMILIES: Final[Mapping[str, Sequence[str]]] = {
    STACKS: (),
    FORMATS: (),
    "Offload, and without padding": ("ZeRO-Inference", "EffectiveTransformer"),
    "Adaptive computation": ("Speculative decoding", "Early exit"),
    "Another model": ("Pruned", "Sparse", "Distilled", "Multihead attention"),
}
"""Kinds of systems, a panel each, and those of :data:`RULES` that are of them; all others partition or run a model."""
SAME: Final = "the same"
"""The quality of a system that neither changes the model nor rounds its weights."""
OTHER_TEXT: Final = (*FAMILIES["Another model"], "Early exit")
"""Systems whose text is not the model's."""


def family_of(row: Row) -> str:
    """The key of :data:`FAMILIES` under which a row is drawn."""
    system = system_of(row)
    found = next((family for family, those in FAMILIES.items() if those and system.startswith(tuple(those))), None)
    return found or (STACKS if row.weight_dtype in ACTIVATION_DTYPES or row.source == "published" else FORMATS)


def changes_the_text(row: Row) -> bool:
    """Whether what it writes is another model's."""
    return system_of(row).startswith(OTHER_TEXT)


def quality_of(row: Row) -> str:
    """What the row's text is to that of the whole model: the same, how far from it, or not known."""
    if row.quality_kl is not None or row.quality_perplexity is not None:
        parts = [] if row.quality_kl is None else [f"KL {significant(row.quality_kl, 2)} nats"]
        parts += [] if row.quality_agreement is None else [f"{row.quality_agreement:.0%} agree"]
        parts += [] if row.quality_perplexity is None else [f"perplexity {significant(row.quality_perplexity, 3)}"]
        return ", ".join(parts)
    if changes_the_text(row):
        return "not known"
    if row.weight_dtype not in ACTIVATION_DTYPES:
        return "not known" if row.kl_divergence is None else f"KL {significant(row.kl_divergence, 2)} nats"
    return SAME

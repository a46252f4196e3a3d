"""InferenceX (formerly InferenceMAX) ``agg_*.json``: a server under load, with times in seconds.

Its ``intvty`` figures are reciprocals of statistics, not statistics of reciprocals, and are not imported.
"""

from typing import Any, Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult, Load
from engines.core.engine import Estimate, Facts
from engines.core.errors import ShardbenchError

PRECISIONS: Final = {
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp8": "float8_e4m3",
    "int8": "int8",
    "int4": "int4",
}
KEPT: Final = (
    "image",
    "infmax_model_prefix",
    "precision",
    "spec_decoding",
    "disagg",
    "is_multinode",
    "tp",
    "pp",
    "ep",
    "dp_attention",
    "prefill_tp",
    "decode_tp",
    "num_prefill_gpu",
    "num_decode_gpu",
)


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("tput_per_gpu", "conc", "isl", "osl")


def entries(content: Content) -> list[ImportedResult]:
    """One generate point under load: batch_size is ``conc``, num_chips counts the GPUs of prefill and decode."""
    stated: dict[str, Any] = {
        "batch_size": content.integer("conc"),
        "input_len": content.integer("isl"),
        "output_len": content.integer("osl"),
        "first_token": "prefill",
        **_chips(content),
    }
    needs: dict[str, str] = {}
    precision = content.text("precision")
    if precision is not None:
        if precision.lower() not in PRECISIONS:
            raise ShardbenchError(
                f"{content.path}: precision={precision} is not supported; "
                f"use a file with one of {', '.join(PRECISIONS)}"
            )
        stated["weight_dtype"] = PRECISIONS[precision.lower()]
        if precision.lower() in ("fp8", "int8", "int4"):
            needs["act_dtype"] = f"the file has precision={precision} but no activation dtype"
    per_gpu = content.required("tput_per_gpu", content.positive("tput_per_gpu"))
    chips = stated.get("num_chips")
    if chips is None:
        raise ShardbenchError(
            f"{content.path}: tp, or num_prefill_gpu and num_decode_gpu, are missing; import an unmodified file"
        )
    load = Load(
        tokens_per_s=per_gpu * chips,
        ttft_s=content.positive("median_ttft"),
        tpot_s=content.positive("median_tpot"),
    )
    details = {"timed_by": "InferenceX", "kept": {key: content.raw(key) for key in KEPT if content.has(key)}}
    return [
        ImportedResult(
            phase="generate",
            stated={key: value for key, value in stated.items() if value is not None},
            estimate=Estimate(system=content.text("framework"), facts=Facts(details=details)),
            model_name=content.text("model"),
            hw_name=content.text("hw"),
            load=load,
            needs=needs,
        )
    ]


def _chips(content: Content) -> dict[str, int | None]:
    prefill, decode = content.integer("num_prefill_gpu"), content.integer("num_decode_gpu")
    if prefill is not None and decode is not None:
        # Prefill and decode run on separate GPUs, and may differ in tensor_parallel.
        return {"num_chips": prefill + decode}
    tensor, pipeline = content.integer("tp"), content.integer("pp")
    return {"num_chips": None if tensor is None else tensor * (pipeline or 1)}

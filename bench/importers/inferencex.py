"""InferenceX (formerly InferenceMAX) ``agg_*.json``: a server under load, with times in seconds.

Its ``intvty`` figures are reciprocals of statistics, not statistics of reciprocals, and are not imported.
"""

from typing import Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from bench.importers.served import Served
from bench.importers.serving import serve_result, statistics_of
from bench.importers.serving_checks import check_in_flight
from engines.core.errors import ShardbenchError

WANTED: Final = ("tput_per_gpu", "conc", "isl", "osl")
PRECISIONS: Final = {
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp8": "float8_e4m3",
    "int8": "int8",
    "int4": "int4",
}
KEPT: Final = (
    *("image", "infmax_model_prefix", "recipe_fingerprint", "is_multinode", "disagg", "ep", "dp_attention"),
    *("prefill_tp", "prefill_ep", "prefill_dp_attention", "prefill_num_workers"),
    *("decode_tp", "decode_ep", "decode_dp_attention", "decode_num_workers"),
)


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has(*WANTED)


def entries(content: Content) -> list[ImportedResult]:
    """One serve point: its batch is ``conc``, its GPUs are those of all degrees, or of prefill and decode together."""
    content.off("spec_decoding", "is speculative decoding", "none")
    for key in ("dcp_size", "pcp_size"):
        content.off(key, "is context parallelism, which maps to no key of a point", 1)
    hw = content.text("hw")
    for key in ("prefill_hw", "decode_hw"):
        content.off(key, f"is another kind of GPU than hw={None if hw is None else hw.value}", hw and hw.value)
    point = stated(
        batch_size=content.integer("conc"),
        input_len=content.integer("isl"),
        output_len=content.integer("osl"),
        weight_dtype=_weights(content),
        **_degrees(content),
    )
    parts = stated(prefill_chips=_gpus(content, "prefill"), decode_chips=_gpus(content, "decode"))
    point["num_chips"] = chips = _chips(content, point, parts)
    served = Served(
        limit=point["batch_size"],
        tokens_per_s=_of_all(content, "tput_per_gpu", chips),
        **_each_way(content, chips, parts),
        statistics=statistics_of(content, suffix="", scale=1.0),
        more=parts,
    )
    content.required("tput_per_gpu", served.tokens_per_s)
    _check_limit(content, served, point["output_len"])
    framework = content.text("framework")
    content.keep(*KEPT, *(key for key in content.names() if key.startswith("power_")))
    return [
        serve_result(
            content,
            served,
            timed_by="InferenceX",
            system="a server" if framework is None else str(framework.value),
            point=point,
            model=content.text("model"),
            hw=hw,
        )
    ]


def _weights(content: Content) -> Known | None:
    precision = content.text("precision")
    if precision is None:
        return None
    if precision.value.lower() not in PRECISIONS:
        raise content.refused("precision", "is not supported", f"use a file with one of {', '.join(PRECISIONS)}")
    return by_rule("precision", PRECISIONS[precision.value.lower()], precision)


def _degrees(content: Content) -> dict[str, Known | None]:
    """Tensor and pipeline parallelism, where experts and attention are not split in another way."""
    tensor, pipeline = content.integer("tp"), content.integer("pp")
    experts, attention = content.integer("ep"), content.flag("dp_attention")
    other = (experts is not None and experts.value > 1) or (attention is not None and attention.value)
    if other or tensor is None:
        return {"pipeline_parallel": pipeline}
    return {
        "tensor_parallel": by_rule("degree_of_tensors", tensor.value, tensor, experts, attention),
        "pipeline_parallel": pipeline,
    }


def _gpus(content: Content, part: str) -> Known | None:
    return content.integer(f"num_{part}_gpu", zero=True)


def _chips(content: Content, point: dict[str, Known], parts: dict[str, Known]) -> Known:
    """All GPUs. A server over several nodes states its GPUs; one that does not split has none of its own for decode."""
    disagg = content.flag("disagg")
    if len(parts) == 2:
        prefill, decode = parts["prefill_chips"], parts["decode_chips"]
        if disagg is not None and disagg.value != (decode.value > 0):
            problem = f"contradicts num_decode_gpu={decode.value}"
            raise content.refused("disagg", problem, "import an unmodified file")
        return by_rule("chips_of_parts", prefill.value + decode.value, prefill, decode)
    tensor, pipeline = content.integer("tp"), content.integer("pp")
    if tensor is None or parts:
        raise ShardbenchError(
            f"{content.where}: tp, or num_prefill_gpu and num_decode_gpu, are missing; import an unmodified file"
        )
    if disagg is not None and disagg.value:
        raise content.refused("disagg", "is a server whose GPUs of each part are missing", "import an unmodified file")
    return by_rule("chips_of_degrees", tensor.value * (1 if pipeline is None else pipeline.value), tensor, pipeline)


def _each_way(content: Content, chips: Known, parts: dict[str, Known]) -> dict[str, Known | None]:
    """Input and output tokens/s: of a split server each is per GPU of its part."""
    split = "decode_chips" in parts and parts["decode_chips"].value > 0
    ins, outs = (parts["prefill_chips"], parts["decode_chips"]) if split else (chips, chips)
    return {
        "input_tokens_per_s": _of_all(content, "input_tput_per_gpu", ins),
        "output_tokens_per_s": _of_all(content, "output_tput_per_gpu", outs),
    }


def _of_all(content: Content, key: str, chips: Known) -> Known | None:
    known = content.number(key)
    return None if known is None else by_rule("tokens_of_all_chips", known.value * chips.value, known, chips)


def _check_limit(content: Content, served: Served, output_len: Known) -> None:
    """Requests of at most ``osl`` tokens: output tokens/s / osl × their mean time are at least in flight."""
    e2el, rate = served.statistics.get("e2el_s.mean"), served.output_tokens_per_s
    if e2el is not None and rate is not None and served.limit is not None:
        check_in_flight(content, served.limit, rate.value / output_len.value * e2el.value, rate, output_len, e2el)

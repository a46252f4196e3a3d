"""llama.cpp ``llama-bench``: prompts read, tokens generated, or both, by one sequence; times in nanoseconds.

``-o json``, ``jsonl``, ``csv``, ``sql`` and ``md`` are read; columns of a table go by their names in the JSON.
"""

import re
import statistics
from collections.abc import Callable, Mapping
from typing import Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from bench.importers.llama_bench_text import UNEVEN
from bench.importers.number_formats import WORDS, check_quantised, number_format
from bench.importers.sample_checks import ROUNDING, check_samples
from engines.core.errors import InvalidRequest
from engines.core.point import Point
from engines.core.point_keys import Phase

WANTED: Final = ("n_prompt", "n_gen", "avg_ts", "model_type", "backends")
KEPT: Final = (
    *("build_commit", "build_number", "test_time", "model_filename", "cpu_info", "gpu_info", "backends", "devices"),
    *("n_batch", "n_ubatch", "n_threads", "cpu_mask", "cpu_strict", "poll", "flash_attn", "use_mmap", "use_direct_io"),
    *("main_gpu", "split_mode", "tensor_split", "no_op_offload", "no_host", "model_size", "stddev_ts"),
)
OFF: Final = (
    ("n_cpu_moe", "keeps experts outside of the chips", 0),
    ("no_kv_offload", "keeps the cache outside of the chips", 0),
    ("tensor_buft_overrides", "keeps weights where they would not be", "none"),
    ("embeddings", "makes embeddings and no tokens", 0),
    ("rpc_servers", "runs on other machines as well", "none"),
    (UNEVEN, "is a row that was cut or has more columns than the table", 0),
)
FLOATING: Final = ("F32", "F16", "BF16")
FILE_TYPE: Final = re.compile(r"\b(F32|F16|BF16|MXFP4\w*|[IT]?Q(\d)\w*)")
"""The format at the end of ``model_type``: one of numbers, or of blocks with scales and the bits of a number."""
NO_GPU: Final = frozenset({"CPU", "BLAS", "AMX", "ACCELERATE", "OPENBLAS", "ZENDNN", "KLEIDIAI"})
MOST_PARAMS_APART: Final = 0.02
"""Relative difference up to which a model is that of the file: a GGUF may count rotary tables and norms otherwise."""


def matches(content: Content) -> bool:
    """Whether the result has this format."""
    return content.has("n_prompt", "n_gen", "avg_ts")


def entries(content: Content) -> list[ImportedResult]:
    """A prefill point (``n_gen=0``), a decode point (``n_prompt=0``, ``n_depth`` tokens in the cache), or a generate
    point, whose every token has a pass of its own after the prompt's.
    """
    for key, meaning, allowed in OFF:
        content.off(key, meaning, allowed)
    prompt, new, depth = (content.integer(key, zero=True) for key in ("n_prompt", "n_gen", "n_depth"))
    phase = _phase(content, prompt, new, depth)
    figures = _figures(content, sum(each.value for each in (prompt, new) if each is not None))
    formats, needs = _weight_format(content)
    chips, hw = _chips(content, needs)
    point = stated(batch_size=by_rule("one_sequence", 1), num_chips=chips, kv_dtype=_cache_format(content), **formats)
    if phase != "decode":
        point |= stated(input_len=prompt)
    if phase != "prefill":
        point |= stated(output_len=new)
    if phase == "decode":
        point |= stated(input_len=depth or by_rule("empty_cache", 0))
    if phase == "generate":
        point |= stated(first_token=by_rule("first_token_of_decode", "decode"))
    content.keep(*KEPT)
    return [
        ImportedResult(
            phase=phase,
            timed_by="llama-bench",
            system="llama.cpp",
            point=point,
            figures=figures,
            model=content.text("model_filename") or content.text("model_type"),
            hw=hw,
            needs=needs,
            check=_check(content, needs),
        )
    ]


def _phase(content: Content, prompt: Known | None, new: Known | None, depth: Known | None) -> Phase:
    reads, generates = (each is not None and each.value > 0 for each in (prompt, new))
    if not reads and not generates:
        raise content.refused("n_gen", "and n_prompt are 0: nothing was timed", "import an unmodified file")
    if reads and depth is not None and depth.value:
        raise content.left_out("n_depth", "reads a prompt behind tokens in the cache", "import results with n_depth=0")
    if reads:
        return "generate" if generates else "prefill"
    return "decode"


def _figures(content: Content, tokens: int) -> dict[str, Known]:
    """``latency_s``: of single runs where the file has them, else of their mean time, else of their mean rate."""
    rate = content.required("avg_ts", content.number("avg_ts"))
    times, rates = content.numbers("samples_ns", scale=1e-9), content.numbers("samples_ts")
    if rates is not None:
        check_samples(content, rates.value, mean="avg_ts")
    runs = times or (rates and by_rule("time_of_rate", [tokens / each for each in rates.value], rates))
    mean = content.number("avg_ns", scale=1e-9)
    if runs is None:
        content.keep("stddev_ns")
        _check_rate(content, tokens, mean, rate)
        time = (
            by_rule("time_of_rate", tokens / rate.value, rate)
            if mean is None
            else by_rule("mean_of_runs", mean.value, mean)
        )
        return {"latency_s": time}
    check_samples(content, [each * 1e9 for each in runs.value], mean="avg_ns", std="stddev_ns")
    check_samples(content, [tokens / each for each in runs.value], mean="avg_ts")
    return {"latency_s": by_rule("median_of_runs", statistics.median(runs.value), runs), "samples_s": runs}


def _check_rate(content: Content, tokens: int, mean: Known | None, rate: Known) -> None:
    """The mean of rates is above the rate of the mean time by the square of their relative spread."""
    spread = content.number("stddev_ts", zero=True)
    room = ROUNDING + (0.0 if spread is None else 2 * (spread.value / rate.value) ** 2)
    if mean is not None and abs(rate.value * mean.value / tokens - 1) > room:
        raise content.refused("avg_ns", f"is not the time of {tokens} tokens at avg_ts", "import an unmodified file")


def _weight_format(content: Content) -> tuple[dict[str, Known], dict[str, str]]:
    """The weights' format, and what the user must say of one in blocks with scales, which is none of a row's."""
    kind = content.text("model_type")
    found = None if kind is None else FILE_TYPE.search(str(kind.value))
    if kind is None or found is None:
        return {}, {}
    bits = _bits_a_weight(content)
    nominal = int(found[2]) if found[2] else {"F32": 32, "F16": 16, "BF16": 16}.get(found[1], 4)
    if bits is not None and bits < nominal * (1 - MOST_PARAMS_APART):
        raise content.refused(
            "model_size",
            f"is {bits:.3g} bits a weight, and {found[1]} has {nominal} or more",
            "import an unmodified file",
        )
    if found[1] in FLOATING:
        return {"weight_dtype": by_rule("precision", WORDS[found[1].lower()], kind)}, {}
    why = f"{found[1]} is blocks of integers with scales, which is no number format of a row"
    return {}, {"weight_dtype": f"{why}; say which it stands for", "act_dtype": f"{why}; say what was multiplied"}


def _bits_a_weight(content: Content) -> float | None:
    size, params = content.number("model_size"), content.number("model_n_params")
    return None if size is None or params is None else 8 * size.value / params.value


def _cache_format(content: Content) -> Known | None:
    keys, values = number_format(content, "type_k"), number_format(content, "type_v")
    if keys is not None and values is not None and keys.value != values.value:
        raise content.refused("type_k", "is not type_v, and a row has one format of the cache", "import a run with one")
    return keys or values


def _chips(content: Content, needs: dict[str, str]) -> tuple[Known | None, Known | None]:
    """The number of chips and their name; ``needs`` takes why the user must give the number."""
    backends = content.text("backends")
    used = set() if backends is None else set(re.split(r"[,\s]+", str(backends.value).upper()))
    layers = content.value("n_gpu_layers")
    if backends is not None and used <= NO_GPU:
        return by_rule("one_cpu", 1, backends), by_rule("cpu_backend", "cpu", backends)
    if layers is not None and layers.value == 0:
        raise content.refused(
            "n_gpu_layers", "keeps every layer on the CPU beside a GPU", "import a run on one of them"
        )
    names = content.text("gpu_info")
    devices = [] if names is None else [each.strip() for each in str(names.value).split(",") if each.strip()]
    hw = Known(devices[0], f"file: {names.keys}") if names is not None and len(set(devices)) == 1 else None
    if len(devices) == 1:
        return by_rule("chips_of_devices", 1, names), hw
    needs["num_chips"] = "the file does not state which of the devices ran" if devices else "the file names no device"
    return None, hw


def _check(content: Content, needs: Mapping[str, str]) -> Callable[[Point], None]:
    """A check that the model is the one of the file, as far as its parameters and layers tell, and its format too."""
    params, layers = content.number("model_n_params"), content.value("n_gpu_layers")
    of_format = None
    if "weight_dtype" in needs:
        kind = content.text("model_type")
        of_format = check_quantised(content, f"model_type={kind and kind.value}", _bits_a_weight(content))

    def check(point: Point) -> None:
        model = point.model
        # A GGUF stores tied embeddings once or twice.
        counts = (model.params, model.params + model.vocab_size * model.d_model)
        if params is not None and all(abs(params.value / count - 1) > MOST_PARAMS_APART for count in counts):
            raise InvalidRequest(
                "model",
                model.name,
                f"has {model.params:.4g} parameters, and {content.where} model_n_params={params.value:.4g}",
                "give the model that ran",
            )
        if layers is not None and isinstance(layers.value, int) and 0 < layers.value < model.num_layers:
            problem = f"leaves some of the {model.num_layers} layers of {model.name} on the CPU"
            raise content.refused("n_gpu_layers", problem, "import a run with all of them on the GPU")
        if of_format is not None:
            of_format(point)

    return check

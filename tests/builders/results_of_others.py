"""Results as other harnesses write them, with their real keys, cut to what a reader can check by hand."""

import copy
from dataclasses import dataclass
from typing import Any

from builders.files_of_others import OTHERS

LATENCY = {
    "avg_latency": 2.0,
    "std_latency": 0.1581,
    "latencies": [1.9, 2.1, 1.8, 2.2],
    "percentiles": {"10": 1.83, "50": 2.0, "99": 2.197},
}
"""`vllm bench latency --output-json`, which also had no std_latency in older versions."""

SERVE = {
    "date": "20250101-000000",
    "backend": "vllm",
    "label": None,
    "model_id": "meta-llama/Meta-Llama-3-8B",
    "tokenizer_id": "meta-llama/Meta-Llama-3-8B",
    "num_prompts": 100,
    "request_rate": float("inf"),
    "burstiness": 1.0,
    "max_concurrency": 16,
    "duration": 50.0,
    "completed": 100,
    "failed": 0,
    "total_input_tokens": 100_000,
    "total_output_tokens": 20_000,
    "request_throughput": 2.0,
    "request_goodput": None,
    "output_throughput": 400.0,
    "total_token_throughput": 2400.0,
    "mean_ttft_ms": 90.0,
    "median_ttft_ms": 80.0,
    "std_ttft_ms": 40.0,
    "p99_ttft_ms": 300.0,
    "mean_tpot_ms": 35.5,
    "median_tpot_ms": 35.0,
    "std_tpot_ms": 2.0,
    "p99_tpot_ms": 41.0,
    "median_e2el_ms": 7500.0,
}
"""`vllm bench serve --save-result`: 100 requests of 1000 + 200 tokens in 50 s, 16 at once."""

OPTIMUM = {
    "config": {
        "name": "pytorch",
        "backend": {
            "name": "pytorch",
            "version": "2.6.0",
            "task": "text-generation",
            "model": "org/Llama-3-8B",
            "torch_dtype": "float16",
            "device": "cuda",
            "device_ids": "0",
            "device_map": None,
            "no_weights": True,
            "quantization_scheme": None,
            "quantization_config": {},
            "peft_type": None,
            "model_kwargs": {},
        },
        "scenario": {
            "name": "inference",
            "warmup_runs": 10,
            "iterations": 3,
            "input_shapes": {"batch_size": 2, "sequence_length": 256},
            "generate_kwargs": {"max_new_tokens": 33, "min_new_tokens": 33, "num_beams": 1, "use_cache": True},
        },
        "launcher": {"name": "process", "device_isolation": True},
        "environment": {"gpu": ["NVIDIA H100 80GB HBM3"], "gpu_count": 1, "torch_version": "2.6.0"},
    },
    "report": {
        "load_model": {"latency": {"unit": "s", "values": [5.0], "mean": 5.0}},
        "prefill": {
            "latency": {"unit": "s", "values": [0.04, 0.05, 0.06], "mean": 0.05, "p90": 0.058, "count": 3},
            "throughput": {"unit": "tokens/s", "value": 10240.0},
            "memory": {"unit": "MB", "max_allocated": 17000.0},
        },
        "decode": {
            "latency": {"unit": "s", "values": [0.64, 0.64, 0.64], "total": 1.92, "stdev": 0.0, "stdev_": 0.0},
            "throughput": {"unit": "tokens/s", "value": 100.0},
        },
        "per_token": {"latency": {"unit": "s", "values": [0.02]}},
    },
}
"""optimum-benchmark's `benchmark.json`: a batch of 2 prompts of 256 tokens, then 32 steps."""

INFERENCEX = {
    "hw": "h200",
    "conc": 32,
    "image": "vllm:1",
    "model": "llama-3-70b",
    "infmax_model_prefix": "llama",
    "framework": "vllm",
    "precision": "bf16",
    "spec_decoding": "none",
    "disagg": False,
    "isl": 1024,
    "osl": 1024,
    "is_multinode": False,
    "tp": 4,
    "pp": 1,
    "dcp_size": 1,
    "pcp_size": 1,
    "ep": 1,
    "dp_attention": "false",
    "tput_per_gpu": 500.0,
    "output_tput_per_gpu": 250.0,
    "input_tput_per_gpu": 250.0,
    "mean_ttft": 0.25,
    "median_ttft": 0.2,
    "std_ttft": 0.1,
    "p99_ttft": 0.9,
    "mean_tpot": 0.03,
    "median_tpot": 0.03,
    "p99.9_tpot": 0.05,
    "mean_e2el": 31.0,
    "std_intvty": 1.0,
    "p99_intvty": 20.0,
    "power_valid": 0,
}
"""InferenceX's `agg_*.json` of one node: 1000 tokens/s each way over 4 GPUs, 32 requests at once."""

INFERENCEX_SPLIT = {
    **{key: value for key, value in INFERENCEX.items() if key not in ("tp", "pp")},
    "is_multinode": True,
    "disagg": True,
    "prefill_tp": 4,
    "prefill_num_workers": 1,
    "decode_tp": 4,
    "decode_num_workers": 3,
    "num_prefill_gpu": 4,
    "num_decode_gpu": 12,
    "tput_per_gpu": 125.0,
    "input_tput_per_gpu": 250.0,
    "output_tput_per_gpu": 250 / 3,
}
"""The same 1000 tokens/s each way, with 4 GPUs that read prompts and 12 that generate."""

MAXTEXT = {
    "prefill": {
        "64": {"time_in_ms": 8.0, "tflops_per_sec_per_device": 50.0},
        "1024": {"time_in_ms": 40.0, "tflops_per_sec_per_device": 90.0},
    },
    "autoregressive": {
        "step_in_ms": 20.0,
        "global_batch_size": 96,
        "total_throughput_tokens_per_second": 4800.0,
        "bw_per_device_GB_per_second": 700.0,
    },
}
"""MaxText's `inference_microbenchmark`: one prompt a prefill call, 96 sequences a step."""

GIVEN = "model=llama-3-8b hw=h100-80gb num_chips=1 batch_size=8 input_len=32 output_len=128 weight_dtype=bfloat16"
SERVED = "model=llama-3-8b hw=h100-80gb num_chips=1 weight_dtype=bfloat16"
ON_TPU = "model=llama-3-8b hw=tpu-v5e num_chips=8 weight_dtype=bfloat16"


@dataclass(frozen=True)
class Example:
    """A result that imports, with what the user has to give beside it."""

    format: str
    content: dict[str, Any]
    words: str = ""


EXAMPLES = {
    "vllm-latency": Example("vllm-latency", LATENCY, GIVEN),
    "vllm-serve": Example("vllm-serve", SERVE, SERVED),
    "optimum-benchmark": Example("optimum-benchmark", OPTIMUM),
    "inferencex": Example("inferencex", INFERENCEX),
    "inferencex-split": Example("inferencex", INFERENCEX_SPLIT),
    "maxtext-prefill": Example("maxtext", MAXTEXT, f"{ON_TPU} phase=prefill"),
    "maxtext-decode": Example("maxtext", MAXTEXT, f"{ON_TPU} phase=decode input_len=1024"),
}
"""At least one a format."""

LIKE_ANOTHER = ("llama_bench.jsonl", "llama_bench.csv", "llama_bench.sql", "vllm_throughput.json")
"""Files whose results are those of another file."""

EXAMPLES |= {
    f"{each.name} {each.words.partition('phase=')[2]}".strip(): Example(each.format, each.result(0), each.words)
    for each in OTHERS
    if each.name not in LIKE_ANOTHER
}


def changed(content: Any, path: str, value: Any) -> Any:
    """A copy in which the value at a path (``config.backend.device``) is another."""
    copied = copy.deepcopy(content)
    place = copied
    *parents, last = path.split(".")
    for part in parents:
        place = place.setdefault(part, {})
    place[last] = value
    return copied

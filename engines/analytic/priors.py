"""What is known of the constants before any row is seen, and why.

A prior is log-normal: a median, and the standard deviation ``width`` of the logarithm; 0 states the constant instead.
They follow from what a chip's and a runtime's makers say of them: how many kernels a layer has, and what starts them.

- A kernel of a recorded graph follows the one before after some 1.8 µs, one that a C++ program starts after 6 µs.
- PyTorch's eager mode takes some 10 µs of the host for each operation, which the device's work hides or not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

GRAPH_S: Final = 1.8e-6
STREAM_S: Final = 6e-6
EAGER_S: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Prior:
    """A log-normal prior of a constant: its median, and the standard deviation ``width`` of its logarithm."""

    value: float
    width: float
    why: str


@dataclass(frozen=True, slots=True)
class Shared:
    """A constant of which several chips or runtimes have a common median, and by how much (``spread``) each differs."""

    median: Prior
    spread: float


CHIPS: Final[Mapping[str, Mapping[str, Shared]]] = {
    "gpu": {
        "matmul_efficiency": Shared(Prior(0.85, 0.05, "cuBLAS on its best shapes"), 0.08),
        "half_width": Shared(Prior(1000.0, 0.5, "several tiles of 256"), 0.2),
        "hbm_efficiency": Shared(Prior(0.85, 0.05, "long streams reach 80 to 90% of a DRAM's bandwidth"), 0.03),
        "link_efficiency": Shared(Prior(0.5, 0.5, "NCCL between eight ranks on messages of megabytes"), 0.2),
        "network_efficiency": Shared(Prior(0.5, 0.5, "the same between nodes"), 0.2),
    },
    "tpu": {
        "matmul_efficiency": Shared(Prior(0.85, 0.05, "large bf16 matmuls on TPU reach 80 to 90% of peak"), 0.05),
        "half_width": Shared(Prior(128.0, 0.0, "side of the MXU: rows to fill and drain it"), 0.0),
        "hbm_efficiency": Shared(Prior(0.88, 0.05, "long streams reach about 90% of a DRAM's bandwidth"), 0.05),
        "link_efficiency": Shared(
            Prior(0.8, 0.0, "headers and gaps; rows cannot tell it from loop_hidden and axis_gain"), 0.0
        ),
        "axis_gain": Shared(Prior(0.5, 0.5, "between one axis after the other and all axes in parallel"), 0.2),
    },
}
"""Constants of chips, by kind."""

_FUSED = Prior(0.0, 0.0, "attention is one kernel: scores stay on the chip")
_NO_HOST = Prior(0.0, 0.0, "kernels are queued ahead of the device, by a graph or by C++")
_NONE = Prior(0.0, 0.0, "it has no such cost")

USUAL: Final[Mapping[str, Mapping[str, Prior]]] = {
    "gpu": {
        "roofline_overlap": Prior(0.7, 0.3, "a matmul streams its weights while it multiplies"),
        "layer_s": Prior(8 * GRAPH_S, 0.4, "eight kernels of a recorded graph"),
        "host_layer_s": _NO_HOST,
        "host_prefill_layer_s": _NO_HOST,
        "step_s": Prior(1e-4, 0.7, "start of a graph, sampling kernels"),
        "request_s": Prior(5e-4, 0.7, "copies of the prompt and of the result"),
        "collective_s": Prior(1.2e-5, 0.4, "a one-shot all-reduce over NVLink with its barriers"),
        "hop_s": Prior(1e-7, 0.5, "every rank reads all others at once"),
        "network_collective_s": Prior(5e-5, 0.5, "InfiniBand and the host's overhead, both ways"),
        "stage_s": Prior(5e-5, 0.5, "an NCCL send and its receive"),
        "sampling_s_per_logit": Prior(5e-11, 0.7, "a few passes over float32 logits: greedy"),
        "score_passes": _FUSED,
        "encoder_score_passes": _FUSED,
        "vector_passes": Prior(0.6, 0.4, "bias, norm, rotation and activation are fused"),
        "cache_efficiency": Prior(1.0, 0.15, "attention streams its cache as a matmul its weights"),
        "kv_reread": Prior(0.25, 0.5, "a block of query heads reads their key/value head together, not wholly"),
        "attention_matmul": Prior(1.0, 0.3, "causal attention does half of the work at half of the rate"),
        "stream_16bit": Prior(1.0, 0.05, "by definition of the chip's share"),
        "stream_int8": Prior(0.8, 0.2, "weights are converted on their way to the multiplier"),
        "stream_int4": Prior(0.6, 0.3, "unpacked, scaled by groups and converted"),
        "stream_float8": Prior(0.95, 0.1, "multiplied as they are"),
        "matmul_16bit": Prior(1.0, 0.1, "by definition of the chip's share"),
        "matmul_int8": Prior(0.8, 0.15, "scales, and a peak of twice the rate to feed"),
        "matmul_float8": Prior(0.8, 0.15, "scales, and a peak of twice the rate to feed"),
        "hbm_usable": Prior(0.92, 0.0, "CUDA context, workspaces of NCCL and cuBLAS, fragments"),
        "prefill_tokens": Prior(16384.0, 0.0, "a batch of long prompts is read in parts"),
        "cache_grows": Prior(1.0, 0.0, "the cache is in pages"),
    },
    "tpu": {
        "roofline_overlap": Prior(0.7, 0.5, "XLA prefetches most weights under the matmul before"),
        "loop_hidden": Prior(0.4, 0.5, "Pope et al. 2022 section 3.5: looped collectives hide a good part"),
        "prefetch": Prior(0.7, 0.3, "asynchronous copies fetch the next weights while collectives run"),
        "layer_s": Prior(1e-5, 0.5, "a few fusions of microseconds, started by the core itself"),
        "step_s": Prior(5e-4, 0.0, "start of a program, sampling"),
        "collective_s": Prior(3e-6, 0.5, "a few microseconds to start a collective"),
        "hop_s": Prior(1e-6, 0.0, "one microsecond a hop"),
        "sampling_s_per_logit": Prior(1e-11, 0.0, "a few passes over float32 logits"),
        "score_passes": Prior(1.0, 0.5, "a Pallas kernel keeps most scores on the chip"),
        "encoder_score_passes": Prior(4.0, 0.0, "written and read, before and after the softmax"),
        "vector_passes": Prior(1.0, 0.0, "XLA fuses what lies between matmuls"),
        "cache_efficiency": Prior(0.7, 0.3, "an int8 cache is converted, and its layout is attention's"),
        "attention_matmul": Prior(1.0, 0.0, "rows cannot tell it from the projections'"),
        "kv_reread": _NONE,
        "stream_int8": Prior(1.0, 0.0, "the conversion is fused into the matmul"),
        "stream_int4": Prior(1.0, 0.0, "the conversion is fused into the matmul"),
        "stream_float8": Prior(1.0, 0.0, "the conversion is fused into the matmul"),
        "matmul_int8": Prior(0.7, 0.2, "activations are quantised on the way, at twice the rate to feed"),
        "matmul_float8": Prior(0.7, 0.2, "activations are quantised on the way, at twice the rate to feed"),
        "hbm_usable": Prior(0.97, 0.0, "about 1 GiB is the runtime's"),
    },
}
"""Constants of a well-made runtime, by kind of chip: those of ``best``, and of others where they do not differ."""

NCCL: Final[Mapping[str, Shared]] = {
    "collective_s": Shared(Prior(2e-5, 0.4, "start of an NCCL kernel"), 0.2),
    "hop_s": Shared(Prior(1.3e-6, 0.15, "a step of NCCL's ring: NVLink, a switch and a flag"), 0.1),
}
"""All-reduces of the runtimes that call NCCL for them."""
NCCL_RUNTIMES: Final = frozenset(
    {"fastertransformer", "megatron", "deepspeed", "lmdeploy", "torch-eager", "tensorrt-llm"}
)

_SORT = Prior(3e-10, 0.3, "a sort of the vocabulary for top_p")
_WHOLE = Prior(1e9, 0.0, "a batch is prefilled at once")
_AT_ONCE = Prior(0.0, 0.0, "the cache of all tokens is taken at the start")
_UNFUSED = Prior(1.0, 0.3, "FasterTransformer's own kernels are the unit")

RUNTIMES: Final[Mapping[str, Mapping[str, Prior]]] = {
    "fastertransformer": {
        "layer_s": Prior(14 * STREAM_S, 0.3, "fourteen kernels, started from C++"),
        "request_s": Prior(1e-4, 0.3, "its example times its own loop, in C++"),
        "sampling_s_per_logit": _SORT,
        "score_passes": Prior(6.0, 0.3, "written and read before and after the softmax, half of it in float32"),
        "encoder_score_passes": Prior(1.0, 0.7, "BERT's attention is fused up to 512 tokens"),
        "vector_passes": _UNFUSED,
        "prefill_tokens": _WHOLE,
        "cache_grows": _AT_ONCE,
        "kv_reread": Prior(1.0, 0.0, "it has no grouped queries"),
    },
    "megatron": {
        "layer_s": Prior(22 * STREAM_S, 0.4, "twenty-two kernels"),
        "host_layer_s": Prior(30 * EAGER_S, 0.3, "thirty operations in eager mode"),
        "host_prefill_layer_s": Prior(30 * EAGER_S, 0.3, "thirty operations in eager mode"),
        "sampling_s_per_logit": _SORT,
        "score_passes": Prior(6.0, 0.3, "scores are materialised and masked"),
        "vector_passes": Prior(2.0, 1.0, "a kernel for each operation; batches may run in parts"),
        "prefill_tokens": _WHOLE,
        "cache_grows": _AT_ONCE,
        "kv_reread": Prior(1.0, 0.0, "it has no grouped queries"),
    },
    "torch-eager": {
        "layer_s": Prior(60 * 3e-6, 0.5, "sixty kernels of at least three microseconds"),
        "host_layer_s": Prior(60 * EAGER_S, 0.3, "sixty operations in eager mode"),
        "host_prefill_layer_s": Prior(60 * EAGER_S, 0.3, "sixty operations in eager mode"),
        "step_s": Prior(5e-4, 0.7, "generate's loop in Python"),
        "vector_passes": Prior(2.5, 0.4, "norms and rotations are several kernels, in float32"),
        "cache_efficiency": Prior(0.2, 0.4, "each step copies the cache: read, written, transposed, read"),
        "hbm_usable": Prior(0.87, 0.0, "PyTorch's allocator leaves fragments"),
        "prefill_tokens": _WHOLE,
        "all_logits": Prior(1.0, 0.0, "the model's forward makes the logits of all positions"),
        "stream_int8": Prior(0.2, 0.3, "a dequantisation of its own reads 1 byte, writes 2, reads 2"),
        "stream_int4": Prior(0.11, 0.3, "a dequantisation of its own reads 0.5 bytes, writes 2, reads 2"),
    },
    "deepspeed": {
        "layer_s": Prior(14 * STREAM_S, 0.4, "fourteen kernels"),
        "host_layer_s": Prior(12 * 2 * EAGER_S, 0.4, "twelve calls of a module's kernels from Python"),
        "host_prefill_layer_s": Prior(12 * 2 * EAGER_S, 0.4, "twelve calls of a module's kernels from Python"),
        "step_s": Prior(3e-3, 0.7, "transformers' generate loop in Python"),
        "score_passes": Prior(4.0, 0.4, "written and read, before and after the softmax"),
        "vector_passes": _UNFUSED,
        "hbm_usable": Prior(0.87, 0.0, "PyTorch's allocator leaves fragments"),
        "prefill_tokens": _WHOLE,
        "cache_grows": _AT_ONCE,
        "all_logits": Prior(1.0, 0.0, "the model's forward makes the logits of all positions"),
        "stream_int8": Prior(0.2, 0.2, "dequantised in a kernel of its own: reads 1 byte, writes 2, reads 2"),
    },
    "lmdeploy": {
        "layer_s": Prior(9 * STREAM_S, 0.3, "nine kernels, started from C++"),
        "step_s": Prior(5e-4, 0.7, "a step's tokens are streamed to the client"),
        "vector_passes": Prior(0.8, 0.4, "most of what lies between matmuls is fused"),
        "request_s": Prior(2e-3, 0.7, "a request passes a server's queue"),
    },
    "gpt-fast": {
        "layer_s": Prior(7 * GRAPH_S, 0.4, "seven kernels of a recorded graph"),
        "host_prefill_layer_s": Prior(40 * EAGER_S, 0.4, "its prefill is not compiled: forty operations in eager mode"),
        "step_s": Prior(3e-4, 0.7, "start of a graph, sampling in Python"),
    },
    "tensorrt-llm": {
        "layer_s": Prior(9 * STREAM_S, 0.3, "nine kernels, started from C++"),
        "hbm_usable": Prior(0.98, 0.0, "an engine's buffers are planned; CUDA's context is what is lost"),
        "kv_reread": Prior(0.4, 0.6, "each query head reads its key/value head, partly from the L2 cache"),
    },
    "vllm": {
        "layer_s": Prior(10 * GRAPH_S, 0.4, "ten kernels of a recorded graph"),
        "host_prefill_layer_s": Prior(15 * EAGER_S, 0.4, "a prefill without graph: fifteen operations in eager mode"),
        "step_s": Prior(2e-3, 0.7, "scheduler and sampler in Python"),
        "request_s": Prior(5e-3, 0.7, "tokens pass between processes"),
    },
    "xla-2022": {
        "layer_s": Prior(2e-5, 0.5, "norms and small vectors, tens of microseconds"),
        "collective_s": Prior(5e-6, 0.5, "a few microseconds to start a collective"),
        "score_passes": Prior(4.0, 0.0, "written and read, before and after the softmax"),
        "cache_efficiency": Prior(1.0, 0.0, "rows cannot tell it from the weights'"),
        "prefetch": Prior(0.0, 0.0, "the paper's decode steps are the sum of both"),
        "matmul_int8": Prior(1.0, 0.0, "its matmuls are in bfloat16"),
    },
    "xla": {},
}
"""Constants in which a runtime differs from a well-made one, by its name."""

SHARED_OVERLAP: Final = "roofline_overlap"
"""A constant of runtimes that is one for all of a kind of chip: how a matmul reads its weights is its kernel's."""

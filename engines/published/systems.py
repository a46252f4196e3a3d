"""What a ``system`` stands for: the runtime that ran, its release, and which pass yields its first token.

Sources name one runtime in many ways (``TensorRT-LLM 0.9.0``, ``trtllm``, ``NIM 1.0``). The names are matched, not
listed: a system that no pattern knows has no runtime, and whoever asks for its prediction is told so.
"""

import re
from functools import cache
from typing import Final, Literal

RUNTIMES: Final = (
    (r"tensorrt llm|tensorrtllm|trt llm|trtllm|nim|nemo(?! megatron)", "tensorrt-llm"),
    (r"vllm", "vllm"),
    (r"lmdeploy|turbomind", "lmdeploy"),
    (r"gpt fast|gptfast|torchao", "gpt-fast"),
    (r"deepspeed", "deepspeed"),
    (r"faster ?transformer", "fastertransformer"),
    (r"megatron", "megatron"),
    (r"torch eager|pytorch|hugging ?face|hf|transformers", "torch-eager"),
    (r"jax llm examples|maxtext|jetstream|tpu inference|xla", "xla"),
    (r"paper", "xla-2022"),
)
"""Pattern of whole words in a system's name → the runtime, the first that matches.

The order matters where a name has two: ``TensorRT-LLM (NeMo Megatron)`` ran TensorRT-LLM's kernels, and DeepSpeed's ran
under a loop of ``transformers``.
"""
OWN_NAMES: Final = frozenset({"best", "xla-2022"})
"""Runtimes that a system names exactly, as the column ``system`` of an exported prediction does."""
FIRST_TOKEN_FROM_DECODE: Final = frozenset({"xla", "xla-2022", "best"})
"""Runtimes whose tables count every output token as a step of its own, as the paper does."""
FIRST_TOKEN_FROM_PREFILL: Final = r"sglang|mlc llm|exllama|llama cpp|tgi|text generation inference"
"""Systems without a runtime here that sample the first token from the prefill's logits."""


@cache
def runtime_of(system: str) -> str | None:
    """The name in ``conf/runtime`` of the runtime that a system names, of any release; None for an unknown system."""
    if system.strip().lower() in OWN_NAMES:
        return system.strip().lower()
    words = _words(system)
    return next((runtime for pattern, runtime in RUNTIMES if _has(pattern, words)), None)


def release_of(system: str) -> tuple[int, ...]:
    """The numbers of the release in a system's name, to order releases by; empty where it names none.

    ``TensorRT-LLM v0.6.1`` → (0, 6, 1).
    """
    found = re.search(r"(?<![\w.])v?(\d+(?:\.\d+)+)", system.lower())
    return tuple(int(number) for number in found[1].split(".")) if found else ()


def first_token_of(system: str) -> Literal["decode", "prefill"]:
    """Which pass yields the first of a generate point's tokens, where a table does not state it.

    Runtimes sample it from the prefill's logits. The paper's tables, those of programs for TPUs, and systems that are
    not known count ``output_len`` steps after the prefill.
    """
    runtime = runtime_of(system)
    if runtime is None:
        return "prefill" if _has(FIRST_TOKEN_FROM_PREFILL, _words(system)) else "decode"
    return "decode" if runtime in FIRST_TOKEN_FROM_DECODE else "prefill"


def _words(system: str) -> str:
    return re.sub(r"[^a-z0-9.]+", " ", system.lower()).strip()


def _has(pattern: str, words: str) -> bool:
    # A release may follow at once ("trtllm0.9"), a letter may not ("nimble").
    return re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z])", words) is not None

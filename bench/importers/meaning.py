"""Keys of no format that would change what a row's figures mean, told by their names."""

import re
from typing import Final

from bench.importers.content import Content

MEANINGS: Final = (
    (r"beam", "is beam search"),
    (r"best_of|num_return_sequences|num_samples_per", "samples several sequences a request"),
    (r"specul|spec_dec|draft|acceptance|medusa|eagle|(^|_)mtp|assistant|prompt_lookup", "is speculative decoding"),
    (r"lora|adapter|peft", "is an adapter beside the model's weights"),
    (r"quant", "is quantisation, which maps to no number format of a row"),
    (
        r"(pipeline|context|expert|data|sequence)_?parallel|(^|_)(dcp|pcp|cp|ep|dp)_(size|degree)",
        "is a kind of parallelism",
    ),
    (r"prefix_?cach|cache_hit|prompt_?cach|enable_?cach", "is a cache of prompts"),
    (r"disagg", "is prefill and decode on separate chips"),
    (r"sparsity|prun", "is a pruned model"),
    (r"offload", "keeps weights or cache outside of the chips"),
)
"""A part of a key's name → what it means, which completes *KEY=VALUE …*."""
OFF: Final = (0, 1, "none", "null", "false", "off", "no", "auto", "default")
"""Values that say that there is none of it."""


def refuse_unknown_meanings(content: Content) -> None:
    """Refuse a key that was not read and whose name, or that of a mapping around it, says that it changes the figures.

    Raises:
        ShardbenchError: there is such a key, and its value is not off.
    """
    for path in content.unread():
        for words, meaning in MEANINGS:
            if any(re.search(words, part.lower()) for part in path.split(".")):
                content.off(path, meaning, *OFF)
                break

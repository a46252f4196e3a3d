"""The same model with the same weights, made ready to read the same prompt and to generate greedily.

A Llama or a Mixtral of random weights is written as a checkpoint, which the jax engine reads and transformers too.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.host.scratch import ScratchFolder

SIZES: dict[str, dict[str, int]] = {
    "full": {
        "vocab_size": 16384,
        "hidden_size": 640,
        "intermediate_size": 1792,
        "num_hidden_layers": 10,
        "num_attention_heads": 10,
        "num_key_value_heads": 10,
        "head_dim": 64,
        "max_position_embeddings": 512,
    },
    "tiny": {
        "vocab_size": 128,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 64,
    },
}
EXPERTS: dict[str, dict[str, int]] = {
    "full": {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 896},
    "tiny": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
"""What a Mixtral has of its own: two of its experts are as wide as the Llama's feed-forward."""
LENGTHS = {"full": (64, 32), "tiny": (6, 3)}
"""Tokens of the prompt, and generated."""


@dataclass(frozen=True)
class Contestant:
    """``run[phase]`` returns when its result is there; ``tokens`` are those generated after the first, [steps]."""

    run: dict[str, Callable[[], None]]
    tokens: Callable[[], list[int]]


class Field:
    """Everyone in one number format. ``left_out`` says who is not there, and why.

    ``family`` is llama or mixtral, which has experts.
    """

    def __init__(self, size: str, dtype: str, *, compiled: bool, family: str = "llama") -> None:
        self.left_out: dict[str, str] = {}
        self.prompt_len, self.steps = LENGTHS[size]
        with ScratchFolder() as folder:
            model = _random_model(family, size, folder)
            self.parameters = sum(each.numel() for each in model.parameters())
            program, everyone = None, {}
            for name, partitioner in (("jax", "manual"), ("jax gspmd", "gspmd")):
                program, everyone[name] = _engine(folder, dtype, partitioner, self.prompt_len, self.steps)
        import torch

        self.threads = len(os.sched_getaffinity(0))
        torch.set_num_threads(self.threads)
        model = model.to(getattr(torch, dtype))
        everyone["torch eager"] = _torch(model, model.forward, program.prompt, self.steps)
        if compiled:
            try:
                forward = torch.compile(model.forward, dynamic=False)
                everyone["torch.compile"] = _torch(model, forward, program.prompt, self.steps)
            except Exception as error:  # no C++ compiler, for one
                self.left_out["torch.compile"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            self.left_out["torch.compile"] = "not asked for"
        self.everyone: dict[str, Contestant] = everyone

    def times(self, phase: str, seconds: float, least: int = 3) -> dict[str, list[tuple[float, float]]]:
        """(Wall seconds, processor seconds) of every run, by contestant, in turn for about so long."""
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in self.everyone}
        for each in self.everyone.values():
            each.run[phase]()
        names, end = list(self.everyone), time.monotonic() + seconds
        while len(found[names[-1]]) < least or time.monotonic() < end:
            for name in names:
                wall, busy = time.perf_counter(), time.process_time()
                self.everyone[name].run[phase]()
                found[name].append((time.perf_counter() - wall, time.process_time() - busy))
        return found


def _random_model(family: str, size: str, folder: Path) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    settings: dict[str, Any] = {**SIZES[size], "tie_word_embeddings": False}
    if family == "mixtral":
        config = MixtralConfig(**{**settings, **EXPERTS[size], "sliding_window": None})
        model = MixtralForCausalLM(config).eval()
    else:
        model = LlamaForCausalLM(LlamaConfig(**settings)).eval()
    model.save_pretrained(folder)
    return model


def _engine(folder: Path, dtype: str, partitioner: Any, prompt_len: int, steps: int) -> tuple[Any, Contestant]:
    from bench.sweep.catalog import load_chip
    from engines.core.point import Point
    from engines.jax.engine import JaxEngine
    from engines.weights.checkpoint.describe import model_of

    point = Point(
        model=model_of(folder),
        chip=load_chip("cpu"),
        engine="jax",
        phase="generate",
        num_chips=1,
        batch_size=1,
        input_len=prompt_len,
        output_len=steps,
        partitioner=partitioner,
        weight_dtype=dtype,
    )
    program: Any = JaxEngine(checkpoint=str(folder)).prepare(point)
    runs = {stage.name: stage.run for stage in program.stages}

    def tokens() -> list[int]:
        generated: list[int] = np.asarray(program.decoded[0])[:, 0].tolist()
        return generated

    return program, Contestant(runs, tokens)


def _torch(model: Any, forward: Callable[..., Any], prompt: Any, steps: int) -> Contestant:
    """transformers with a static cache; the prompt is first read as it stands, which makes the cache."""
    import torch
    from transformers import StaticCache

    ids = torch.from_numpy(prompt.astype(np.int64))
    length = ids.shape[1]
    cache = StaticCache(config=model.config, max_cache_len=length + steps + 1)
    made: list[Any] = []

    def next_token(function: Callable[..., Any], tokens: Any) -> Any:
        output = function(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1].argmax(-1, keepdim=True)

    def back_to(position: int) -> None:
        for layer in cache.layers:
            layer.cumulative_length.fill_(position)

    @torch.inference_mode()
    def prefill() -> None:
        back_to(0)
        next_token(forward, ids)

    @torch.inference_mode()
    def decode() -> None:
        back_to(length)
        made[1:] = []
        for _ in range(steps):
            made.append(next_token(forward, made[-1]))

    with torch.inference_mode():
        made.append(next_token(model.forward, ids))
    decode()
    return Contestant({"prefill": prefill, "decode": decode}, lambda: [int(each) for each in made[1:]])

"""One rank of a point: its weights, its cache, and its part of prefill and decode."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from engines.core.point import Point
from engines.torch.attention import Reach
from engines.torch.collectives import Links
from engines.torch.cuda_graph import recorder_of
from engines.torch.devices import device_of
from engines.torch.parameters import DTYPES, Maker
from engines.torch.peaks import measured_peaks, wait_for
from engines.torch.shard import Shard
from engines.torch.transformer import Transformer
from engines.weights.checkpoint.source import Checkpoint
from engines.weights.random import Source, prompt

KEPT_LOGITS: Final = 4
"""Decode keeps the logits of so many last steps (of all, where fewer), to be checked."""
MOST_RECORDED: Final = 256
"""So many steps are recorded one by one, each reading exactly what is cached by then. More share one recording, which
reads the whole cache under a mask."""
WARM_UP_RUNS: Final = 2
COMPILE_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "cpu": {},
    # Products with one row become sums that read int8 weights as they are; others may widen them in their own kernel.
    "cuda": {"coordinate_descent_tuning": True, "max_autotune": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every rank of a point is told. ``decode`` is eager, graph or compile; ``threads`` 0 leaves PyTorch's own.

    A collective gives up after ``timeout_s``. ``checkpoint`` is the folder of the weights, where they are not by seed.
    """

    point: Point
    seed: int
    decode: str
    checkpoint: str | None = None
    threads: int = 0
    timeout_s: float = 600

    def source(self) -> Source:
        """Where the weights come from. The engine has read a checkpoint's values through before there is a job."""
        return self.seed if self.checkpoint is None else Checkpoint(Path(self.checkpoint), self.point.model)

    def shard(self, rank: int) -> Shard:
        """The part of a rank."""
        return Shard(self.point.model, self.point.tensor_degree, self.point.pipeline_degree, rank)


class Rank:
    """Methods are called on every rank together; each returns when this rank's device is done."""

    @torch.inference_mode()
    def __init__(self, job: Job, rank: int, local_rank: int) -> None:
        if job.threads:
            torch.set_num_threads(job.threads)
        point, shard = job.point, job.shard(rank)
        self.point, self.shard, self.links = point, shard, self.make_links(shard, job.timeout_s)
        self.device = self.make_device(local_rank)
        self.dtype = DTYPES[point.act_dtype]
        self.length = point.input_len + point.output_len
        self.parameters = Maker(shard, job.source(), self.device, point.weight_dtype, point.act_dtype).make()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.transformer = Transformer(shard, self.parameters, self.links, self.length, self.dtype)
        kv_heads = shard.kv_heads.stop - shard.kv_heads.start
        shape = (point.batch_size, kv_heads, self.length, point.model.head_dim)
        # A tensor each: what torch.compile makes of a write into a part of one large tensor copies all of it.
        keys_and_values = [
            torch.zeros(shape, dtype=DTYPES[point.kv_dtype], device=self.device) for _ in range(2 * len(shard.layers))
        ]
        self.cache = list(zip(keys_and_values[::2], keys_and_values[1::2], strict=True))
        ids = prompt(point.model, point.batch_size, max(point.input_len, 1), job.seed)
        self.prompt = torch.from_numpy(ids).long().to(self.device)
        # A decode point starts from a cache that a real prefill filled; without a prompt, from the first token.
        self.first = self.prompt[:, 0].clone()
        self.token = self.first.clone()
        self.position, self.number = (torch.zeros(1, dtype=torch.long, device=self.device) for _ in range(2))
        self.micro_batches = _micro_batches(point.batch_size, shard.pipeline)
        steps = point.decode_steps
        ids_here = shard.vocab_size if shard.is_last else 0
        self.generated = torch.zeros(steps, point.batch_size, dtype=torch.long, device=self.device)
        self.kept = torch.zeros(min(steps, KEPT_LOGITS), point.batch_size, ids_here, device=self.device)
        self.first_scores = torch.zeros(point.batch_size, ids_here, device=self.device) if point.input_len else None
        self.most_bytes: float | None = None
        self.run_prompt: Callable[[], None] = self._prompt
        self.run_step: Callable[[int, int, bool], None] = self._step
        self.exact = job.decode == "eager" or steps <= MOST_RECORDED
        self.replay_prompt: Callable[[], None] | None = None
        self.replay_steps: list[Callable[[], None]] = []
        if point.input_len:
            self.prefill()
        start = time.perf_counter()
        if job.decode != "eager":
            self.make_ready(job.decode == "compile")
        self.seconds_to_compile = time.perf_counter() - start

    def make_links(self, shard: Shard, timeout_s: float) -> Links:
        """The links to the other ranks, which have joined."""
        return Links(shard, timeout_s)

    def make_device(self, local_rank: int) -> torch.device:
        """The device that holds this rank's tensors."""
        return device_of(self.point, local_rank)

    def compile_s(self) -> float:
        """Seconds that it took to record or compile."""
        return self.seconds_to_compile

    @torch.inference_mode()
    def prefill(self) -> None:
        """The prompt through all stages: fills the cache, and makes the first token and its logits."""
        (self.replay_prompt or self.run_prompt)()
        wait_for(self.device)

    @torch.inference_mode()
    def decode(self) -> None:
        """All steps, each fed with the token of the one before on the device; the host hears nothing in between."""
        self._rewind()
        for number in range(self.point.decode_steps):
            if self.replay_steps:
                self.replay_steps[number % len(self.replay_steps)]()
            else:
                self.step_at(number)
        wait_for(self.device)

    @torch.inference_mode()
    def outputs(self) -> dict[str, Any] | None:
        """Of the last stage: tokens, and this rank's ids of the logits [.., batch, ids]; None of the others."""
        if not self.shard.is_last:
            return None
        self._note_memory()
        ids, steps = self.shard.vocab.stop - self.shard.vocab.start, self.point.decode_steps
        order = [step % len(self.kept) for step in range(steps - len(self.kept), steps)]
        scores = None if self.first_scores is None else self.first_scores[:, :ids].cpu().numpy()
        return {
            "first": self.first.cpu().numpy(),
            "first_scores": scores,
            "generated": self.generated.cpu().numpy(),
            "kept": self.kept[order, :, :ids].cpu().numpy(),
        }

    def facts(self) -> dict[str, Any]:
        """This rank's memory since its weights were loaded, its device and what it reaches.

        Ranks that share a machine measure what they reach at the same time.
        """
        on_gpu = self.device.type == "cuda"
        self._note_memory()
        flops, copied = measured_peaks(self.device, self.dtype, self._product()) or (None, None)
        return {
            "weights_bytes": float(sum(each.nbytes for each in self.parameters.all())),
            "kv_cache_bytes": float(sum(each.nbytes for layer in self.cache for each in layer)),
            "peak_hbm_bytes": self.most_bytes,
            "device_kind": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "flops_per_s": flops,
            "bytes_per_s": copied,
            "micro_batches": len(self.micro_batches),
        }

    def _product(self) -> tuple[int, int, int]:
        """The shape of this rank's first feed-forward matmul: tokens, model width, hidden width."""
        model, point = self.point.model, self.point
        tokens = point.batch_size * (1 if point.phase == "decode" else point.input_len)
        return tokens, model.d_model, max(1, model.d_ff // point.tensor_degree)

    def _rewind(self) -> None:
        # Each run starts at the same position and overwrites what the last one wrote before reading it, so there is
        # nothing else to reset.
        self.token.copy_(self.first)
        self.position.fill_(self.point.input_len)
        self.number.zero_()

    def _note_memory(self) -> None:
        # Once, before anything but the timed work takes memory: the check against the reference does.
        if self.device.type == "cuda" and self.most_bytes is None:
            self.most_bytes = float(torch.cuda.max_memory_allocated(self.device))

    def _prompt(self) -> None:
        reach = self._reach(torch.arange(self.point.input_len, device=self.device), self.point.input_len, True)
        for rows in self.micro_batches:
            scores = self._through(self.prompt[rows], rows, reach)
            if scores is None:
                continue
            assert self.first_scores is not None
            self.first_scores[rows] = scores
            self.first[rows] = self.transformer.greedy(scores)
            if not self.shard.is_first:
                self.links.send_back(self.first[rows])
        if self.shard.is_first and not self.shard.is_last:
            for rows in self.micro_batches:
                self.links.receive_back(self.first[rows])
        self.links.flush()

    def _reach(self, positions: Tensor, limit: int, exact: bool) -> Reach:
        return Reach(positions, limit, exact, self.transformer.rotary)

    def step_at(self, number: int) -> None:
        """Step ``number`` as it is run or recorded."""
        limit = self.point.input_len + number + 1 if self.exact else self.length
        self.run_step(number, limit, self.exact)

    def _step(self, number: int, limit: int, exact: bool) -> None:
        """One token for every sequence. Only ``number`` 0 differs: its tokens are here already."""
        reach = self._reach(self.position, limit, exact)
        for rows in self.micro_batches:
            if self.shard.is_first and not self.shard.is_last and number:
                self.links.receive_back(self.token[rows])
            scores = self._through(self.token[rows, None], rows, reach)
            if scores is None:
                continue
            token = self.transformer.greedy(scores)
            self.token[rows] = token
            self.generated[:, rows].index_copy_(0, self.number, token[None])
            self.kept[:, rows].index_copy_(0, self.number % len(self.kept), scores[None])
            if not self.shard.is_first and number < self.point.decode_steps - 1:
                self.links.send_back(self.token[rows])
        self.position += 1
        self.number += 1
        self.links.flush()

    def _through(self, tokens: Tensor, rows: slice, reach: Reach) -> Tensor | None:
        """A micro-batch through this stage: logits from the last, None from the others."""
        if self.shard.is_first:
            x = self.transformer.embed(tokens, reach)
        else:
            x = torch.empty(*tokens.shape, self.point.model.d_model, dtype=self.dtype, device=self.device)
            self.links.receive_ahead(x)
        x = self.transformer.layers(x, [(keys[rows], values[rows]) for keys, values in self.cache], reach)
        if self.shard.is_last:
            return self.transformer.logits(x)
        self.links.send_ahead(x)
        return None

    def make_ready(self, compile_first: bool) -> None:
        """Compile prompt and step, and on a GPU record them: shapes and addresses are the same each time."""
        steps, prompts = self.point.decode_steps, self.point.phase != "decode"
        if compile_first:
            torch.compiler.reset()  # it counts what earlier points had compiled, and after eight gives up in silence
            if prompts:
                self.run_prompt = compiled(self._prompt, self.device)
            # The limit differs from step to step: the second step is compiled for any.
            self.run_step = compiled(self._step, self.device)

        recorded = range(steps if self.exact else min(steps, 1))

        def warm_up() -> None:
            for _ in range(WARM_UP_RUNS):
                if prompts:
                    self.run_prompt()
                self._rewind()
                for number in recorded:  # each: another limit may be another kernel, to be loaded before it is recorded
                    self.step_at(number)
            self._rewind()

        recorder = recorder_of(self.device)
        if recorder is None:
            warm_up()
            return
        recorder.warm_up(warm_up)
        if prompts:
            self.replay_prompt = recorder.record(self.run_prompt)
        self.replay_steps = [recorder.record(partial(self.step_at, number)) for number in recorded]
        wait_for(self.device)


def compiled(work: Callable[..., None], device: torch.device) -> Callable[..., None]:
    """``work`` as torch.compile makes it for the device, at its first call."""
    return torch.compile(work, options=COMPILE_OPTIONS[device.type])


def _micro_batches(batch_size: int, stages: int) -> list[slice]:
    """As many parts as there are stages, or sequences where those are fewer, so that every stage has work."""
    count = min(batch_size, stages)
    bounds = [batch_size * number // count for number in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]

"""One rank of a point: its weights, its cache, and its part of prefill and decode."""

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor

from engines.point import Point
from engines.torch.attention import Reach
from engines.torch.devices import device_of
from engines.torch.links import Links
from engines.torch.parameters import DTYPES, Maker
from engines.torch.peaks import measured_peaks, wait_for
from engines.torch.shard import Shard
from engines.torch.transformer import Transformer
from engines.weights import prompt

KEPT_LOGITS: Final = 4
"""Decode keeps the logits of so many last steps (of all, where fewer), to be checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every rank of a point is told. ``decode`` is eager, graph or compile; ``threads`` 0 leaves PyTorch's own."""

    point: Point
    seed: int
    decode: str
    threads: int = 0

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
        self.point, self.shard, self.links = point, shard, Links(shard)
        self.device = device_of(point, local_rank)
        self.dtype = DTYPES[point.act_dtype]
        self.length = point.input_len + point.output_len
        self.parameters = Maker(shard, job.seed, self.device, point.weight_dtype, point.act_dtype).make()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.transformer = Transformer(shard, self.parameters, self.links, self.length, self.dtype)
        kv_heads = shard.kv_heads.stop - shard.kv_heads.start
        shape = (len(shard.layers), 2, point.batch_size, kv_heads, self.length, point.model.head_dim)
        self.cache = torch.zeros(shape, dtype=DTYPES[point.kv_dtype], device=self.device)
        ids = prompt(point.model, point.batch_size, max(point.input_len, 1), job.seed)
        self.prompt = torch.from_numpy(ids).long().to(self.device)
        # A decode point starts from a cache that a real prefill filled; without a prompt, from the first token.
        self.first = self.prompt[:, 0].clone()
        self.first_scores: Tensor | None = None
        self.token = self.first.clone()
        self.position, self.number = (torch.zeros(1, dtype=torch.long, device=self.device) for _ in range(2))
        self.micro_batches = _micro_batches(point.batch_size, shard.pipeline)
        steps = point.decode_steps
        ids_here = shard.vocab_size if shard.is_last else 0
        self.generated = torch.zeros(steps, point.batch_size, dtype=torch.long, device=self.device)
        self.kept = torch.zeros(min(steps, KEPT_LOGITS), point.batch_size, ids_here, device=self.device)
        if point.input_len:
            self.prefill()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.step = self._step
        self.static = job.decode != "eager"
        start = time.perf_counter()
        if steps and self.static:
            self._make_static(job.decode)
        self.seconds_to_compile = time.perf_counter() - start

    def compile_s(self) -> float:
        """Seconds that it took to record or compile the decode step."""
        return self.seconds_to_compile

    @torch.inference_mode()
    def prefill(self) -> None:
        """The prompt through all stages: fills the cache, and makes the first token and its logits."""
        reach = Reach(torch.arange(self.point.input_len, device=self.device), self.point.input_len, exact=True)
        scores = []
        for rows in self.micro_batches:
            made = self._through(self.prompt[rows], rows, reach)
            if made is not None:
                scores.append(made)
                self.first[rows] = self.transformer.greedy(made)
                if not self.shard.is_first:
                    self.links.send_back(self.first[rows])
        if scores:
            self.first_scores = torch.cat(scores)
        if self.shard.is_first and not self.shard.is_last:
            for rows in self.micro_batches:
                self.links.receive_back(self.first[rows])
        self.links.flush()
        wait_for(self.device)

    @torch.inference_mode()
    def decode(self) -> None:
        """All steps, each fed with the token of the one before on the device; the host hears nothing in between."""
        self._rewind()
        for number in range(self.point.decode_steps):
            if self.graph is not None:
                self.graph.replay()
            elif self.static:
                self.step(number, self.length, False)
            else:
                self.step(number, self.point.input_len + number + 1, True)
        wait_for(self.device)

    @torch.inference_mode()
    def outputs(self) -> dict[str, Any] | None:
        """Of the last stage: tokens, and this rank's ids of the logits [.., batch, ids]; None of the others."""
        if not self.shard.is_last:
            return None
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
        most = float(torch.cuda.max_memory_allocated(self.device)) if on_gpu else None
        flops, copied = measured_peaks(self.device, self.dtype) or (None, None)
        return {
            "weights_bytes": float(sum(each.nbytes for each in self.parameters.all())),
            "kv_cache_bytes": float(self.cache.nbytes),
            "peak_hbm_bytes": most,
            "device_kind": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "flops_per_s": flops,
            "bytes_per_s": copied,
            "micro_batches": len(self.micro_batches),
        }

    def _rewind(self) -> None:
        # Each run starts at the same position and overwrites what the last one wrote before reading it, so there is
        # nothing else to reset.
        self.token.copy_(self.first)
        self.position.fill_(self.point.input_len)
        self.number.zero_()

    def _step(self, number: int, limit: int, exact: bool) -> None:
        """One token for every sequence. Only ``number`` 0 differs: its tokens are here already."""
        reach = Reach(self.position, limit, exact)
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
        x = self.transformer.layers(x, self.cache[:, :, rows], reach)
        if self.shard.is_last:
            return self.transformer.logits(x)
        self.links.send_ahead(x)
        return None

    def _make_static(self, decode: str) -> None:
        """Compile the step, and on a GPU record it as a CUDA graph: shapes and addresses are the same each step."""
        if decode == "compile":
            self.step = torch.compile(self._step, dynamic=False)
        if self.device.type != "cuda":
            self._rewind()
            self.step(0, self.length, False)
            return
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self._rewind()
                self.step(0, self.length, False)
        torch.cuda.current_stream(self.device).wait_stream(side)
        self._rewind()
        self.graph = torch.cuda.CUDAGraph()
        # Other threads (NCCL's watchdog) may go on calling CUDA while this one records.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.step(0, self.length, False)
        wait_for(self.device)


def _micro_batches(batch_size: int, stages: int) -> list[slice]:
    """As many parts as there are stages, or sequences where those are fewer, so that every stage has work."""
    count = min(batch_size, stages)
    bounds = [batch_size * number // count for number in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]

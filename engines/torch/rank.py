"""One rank of a point: its weights, its cache, and its part of prefill and decode."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from engines.torch.collectives import Collectives
from engines.torch.cuda_graph import recorder_of
from engines.torch.devices import device_of
from engines.torch.job import Job
from engines.torch.layers import layers_of, loaded
from engines.torch.parameters import DTYPES
from engines.torch.peaks import measured_peaks, wait_for
from engines.torch.sequences import Pass, micro_batches, sequences_of
from engines.torch.shard import Shard
from engines.torch.transformer import Transformer
from engines.weights.random import prompt

KEPT_LOGITS: Final = 4
"""Decode keeps the logits of this many last steps (of all, where there are fewer), to be verified."""
MOST_RECORDED: Final = 256
"""Up to this many steps are recorded one by one, each reading exactly the positions cached by then. More steps share
one recording, which reads the whole cache under a mask."""
WARM_UP_RUNS: Final = 2
COMPILE_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "cpu": {},
    # Matmuls with one row become reductions that read int8 weights directly; others may convert them in their kernel.
    "cuda": {"coordinate_descent_tuning": True, "max_autotune": True},
}


class Rank:
    """Each method is called on every rank at the same time, and returns when this rank's device is done."""

    @torch.inference_mode()
    def __init__(self, job: Job, rank: int, local_rank: int) -> None:
        if job.threads:
            torch.set_num_threads(job.threads)
        point, shard = job.point, job.shard(rank)
        self.point, self.shard, self.collectives = point, shard, self.make_collectives(shard, job.timeout_s)
        self.device = self.make_device(local_rank)
        self.dtype = DTYPES[point.act_dtype]
        self.length = point.input_len + point.output_len
        self.parameters = loaded(job, shard, self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.transformer = Transformer(
            shard, self.parameters, self.collectives, self.length, self.dtype, point.latent_attention
        )
        self.transformer.splits_tokens = point.sequence_parallel == "norms"
        own = shard.sequences(point.batch_size)
        batch_size = own.stop - own.start
        ids = prompt(point.model, point.batch_size, max(point.input_len, 1), job.seed)[own]
        self.prompt = torch.from_numpy(ids).long().to(self.device)
        lengths = job.lengths.reshape(shard.data, -1).tolist()
        self.sequences = sequences_of(point, self.transformer, self.prompt, lengths, shard.group)
        self.micro_batches = micro_batches(batch_size, point.micro_batches or shard.pipeline)
        self.layers = layers_of(job, shard, self.device, self.parameters, self.sequences, self.micro_batches)
        # A decode point starts from a cache that a real prefill filled; without a prompt, from the first token.
        self.first = self.prompt[:, 0].clone()
        self.token = self.first.clone()
        self.start = self.sequences.start
        self.position, self.number = torch.zeros_like(self.start), torch.zeros_like(self.start[:1])
        steps = point.decode_steps
        ids_here = shard.vocab_size if shard.is_last else 0
        self.generated = torch.zeros(steps, batch_size, dtype=torch.long, device=self.device)
        self.kept = torch.zeros(min(steps, KEPT_LOGITS), batch_size, ids_here, device=self.device)
        self.first_scores = torch.zeros(batch_size, ids_here, device=self.device) if point.input_len else None
        self.peak_bytes: float | None = None
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

    def make_collectives(self, shard: Shard, timeout_s: float) -> Collectives:
        """Collectives with the other ranks, which have joined."""
        return Collectives(shard, timeout_s)

    def make_device(self, local_rank: int) -> torch.device:
        """The device that holds this rank's tensors."""
        return device_of(self.point, local_rank)

    def compile_s(self) -> float:
        """Seconds that recording or compiling took."""
        return self.seconds_to_compile

    @torch.inference_mode()
    def prefill(self) -> None:
        """Run the prompt through all stages: fills the cache, computes the first token and its logits."""
        with self.layers.running("prefill", [None]):
            (self.replay_prompt or self.run_prompt)()
        wait_for(self.device)

    @torch.inference_mode()
    def decode(self) -> None:
        """All decode steps; each reads the previous token on the device, without returning to the host."""
        self._reset()
        with self.layers.running("decode", range(self.point.decode_steps)):
            for number in range(self.point.decode_steps):
                if self.replay_steps:
                    self.replay_steps[number % len(self.replay_steps)]()
                else:
                    self.step_at(number)
        wait_for(self.device)

    @torch.inference_mode()
    def outputs(self) -> dict[str, Any] | None:
        """On the last stage: tokens, and the logits [.., batch, ids] of this rank's ids; None on other stages."""
        if not self.shard.is_last:
            return None
        self._record_peak_memory()
        ids, steps = self.shard.vocab.stop - self.shard.vocab.start, self.point.decode_steps
        order = [step % len(self.kept) for step in range(steps - len(self.kept), steps)]
        scores = None if self.first_scores is None else self.first_scores[:, :ids].cpu().numpy()
        return {
            "group": self.shard.group,
            "first": self.first.cpu().numpy(),
            "first_scores": scores,
            "generated": self.generated.cpu().numpy(),
            "kept": self.kept[order, :, :ids].cpu().numpy(),
        }

    def facts(self) -> dict[str, Any]:
        """This rank's memory since its weights were loaded, its device and the device's measured peaks.

        Ranks that share a machine measure peaks at the same time.
        """
        on_gpu = self.device.type == "cuda"
        self._record_peak_memory()
        flops, copied = measured_peaks(self.device, self.dtype, self._product()) or (None, None)
        return {
            "weights_bytes": float(sum(each.nbytes for each in self.parameters.all()) + self.layers.weights_bytes),
            "kv_cache_bytes": float(self.layers.cache_bytes),
            "peak_hbm_bytes": self.peak_bytes,
            "device_kind": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "flops_per_s": flops,
            "bytes_per_s": copied,
            "micro_batches": len(self.micro_batches),
            "offload": self.layers.logs,
        }

    def _product(self) -> tuple[int, int, int]:
        """The shape of this rank's first feed-forward matmul: tokens, model width, hidden width."""
        model, point = self.point.model, self.point
        tokens = point.batch_size * (1 if point.phase == "decode" else point.input_len)
        return tokens, model.d_model, max(1, model.d_ff // point.tensor_degree)

    def _reset(self) -> None:
        # Each run starts at the same position and overwrites what the last one wrote before reading it, so there is
        # nothing else to reset.
        self.token.copy_(self.first)
        self.position.copy_(self.start)
        self.number.zero_()

    def _record_peak_memory(self) -> None:
        # Recorded once, before verification allocates memory for the reference.
        if self.device.type == "cuda" and self.peak_bytes is None:
            self.peak_bytes = float(torch.cuda.max_memory_allocated(self.device))

    def _prompt(self) -> None:
        read = self.sequences.prompt()
        for rows in self.micro_batches:
            scores = self._run_stage(read(rows), rows)
            if scores is None:
                continue
            assert self.first_scores is not None
            self.first_scores[rows] = scores
            self.first[rows] = self.transformer.greedy(scores)
            if not self.shard.is_first:
                self.collectives.send_tokens(self.first[rows])
        if self.shard.is_first and not self.shard.is_last:
            for rows in self.micro_batches:
                self.collectives.receive_tokens(self.first[rows])
        self.collectives.flush()

    def step_at(self, number: int) -> None:
        """Step ``number`` as it is run or recorded."""
        limit = self.point.input_len + number + 1 if self.exact else self.length
        self.run_step(number, limit, self.exact)

    def _step(self, number: int, limit: int, exact: bool) -> None:
        """One token for every sequence. Step 0 receives no tokens: the first stage already has them."""
        read = self.sequences.step(self.position, number, limit, exact)
        for rows in self.micro_batches:
            if self.shard.is_first and not self.shard.is_last and number:
                self.collectives.receive_tokens(self.token[rows])
            scores = self._run_stage(read(rows, self.token), rows)
            if scores is None:
                continue
            token = self.transformer.greedy(scores)
            self.token[rows] = token
            self.generated[:, rows].index_copy_(0, self.number, token[None])
            self.kept[:, rows].index_copy_(0, self.number % len(self.kept), scores[None])
            if not self.shard.is_first and number < self.point.decode_steps - 1:
                self.collectives.send_tokens(self.token[rows])
        self.position += 1
        self.number += 1
        self.collectives.flush()

    def _run_stage(self, read: Pass, rows: slice) -> Tensor | None:
        """Run a micro-batch through this stage: returns logits on the last stage, None on others."""
        if self.shard.is_first:
            x = self.transformer.embed(read.tokens, read.positions)
        else:
            x = torch.empty(*read.tokens.shape, self.point.model.d_model, dtype=self.dtype, device=self.device)
            self.collectives.receive_activations(x)
        x = self.transformer.layers(x, self.layers.of(rows), read.masks, read.longest)
        if self.shard.is_last:
            return self.transformer.logits(x, read.last)
        self.collectives.send_activations(x)
        return None

    def make_ready(self, compile_first: bool) -> None:
        """Compile prompt and step, and on a GPU record them: shapes and addresses are the same each time."""
        steps, prompts = self.point.decode_steps, self.point.phase != "decode"
        if compile_first:
            torch.compiler.reset()  # its limit of eight recompilations also counts earlier points
            if prompts:
                self.run_prompt = compiled(self._prompt, self.device)
            # The limit changes with every step: the second compilation makes it dynamic.
            self.run_step = compiled(self._step, self.device)

        recorded = range(steps if self.exact else min(steps, 1))

        def warm_up() -> None:
            for _ in range(WARM_UP_RUNS):
                if prompts:
                    self.run_prompt()
                self._reset()
                for number in recorded:  # each: another limit may be another kernel, to be loaded before it is recorded
                    self.step_at(number)
            self._reset()

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
    """``work`` compiled with torch.compile for the device, at its first call."""
    return torch.compile(work, options=COMPILE_OPTIONS[device.type])

"""A point that is loaded and compiled on its ranks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from engines.core.engine import Facts, Stage, Verification
from engines.host.resident import peak_resident_bytes
from engines.torch.job import Job
from engines.torch.rank_group import RankGroup
from engines.torch.result import Outputs, verification
from engines.torch.trace import program_id_of
from engines.weights.lengths import counted
from engines.weights.logits import checked_rows


class TorchProgram:
    """Implements :class:`engines.core.engine.Program`."""

    def __init__(self, job: Job, rank_group: RankGroup, tolerance: float, options: Mapping[str, Any]) -> None:
        self.job, self.rank_group, self.tolerance, self.options = job, rank_group, tolerance, options
        point = job.point
        timed = [name for name in ("prefill", "decode") if point.phase in (name, "generate")]
        if not point.decode_steps:
            timed = [name for name in timed if name != "decode"]
        self.stages: Sequence[Stage] = [Stage(name, self._caller(name)) for name in timed]
        self.compile_s: float = max(rank_group.call("compile_s"))

    def _caller(self, name: str) -> Callable[[], None]:
        def run() -> None:
            self.rank_group.call(name)

        return run

    def verify(self) -> Verification:
        """Run the timed stages once more; compare their logits with the float32 reference fed with their tokens."""
        for stage in self.stages:
            stage.run()
        outputs = Outputs.joined(self.rank_group.call("outputs"))
        return self.rank_group.once(lambda: verification(self.job, outputs, self.tolerance))

    def facts(self) -> Facts:
        """Parallel degrees as run, memory of the fullest rank, and the measured peaks.

        Those are the slowest rank's, but on a CPU the best rank's: ranks share its cores, and a peak is an upper bound.
        """
        point = self.job.point
        ran: dict[str, Any] = {"tensor_parallel": point.tensor_degree, "pipeline_parallel": point.pipeline_degree}
        ran |= {"runtime": "torch-eager", "collectives": "plain"}
        if point.pipeline_degree > 1:
            ran["micro_batches"] = min(point.micro_batches or point.pipeline_degree, point.batch_size)
        split = point.tensor_degree > 1
        ran |= {"ffn_layout": "ws_1d" if split else None, "attn_sharding": "heads" if split else None}
        if point.model.num_experts is not None:
            ran["expert_parallel"] = point.expert_parallel or 1
        if point.data_parallel is not None:
            ran["data_parallel"] = point.data_parallel
        if point.model.attention.is_latent and point.latent_attention == "auto" and point.phase != "generate":
            ran["latent_attention"] = "expanded" if point.phase == "prefill" else "absorbed"
        real = int(self.job.lengths.sum())
        requested = point.axes()
        ranks: list[dict[str, Any]] = self.rank_group.call("facts")
        without_datasheet = point.chip.kind == "cpu"
        which = max if without_datasheet else min
        flops, copied = (_over(which, ranks, key) for key in ("flops_per_s", "bytes_per_s"))
        return Facts(
            program_id=program_id_of(self.job, torch_versions()),
            resolved={key: value for key, value in ran.items() if requested[key] != value},
            processed_tokens=counted(point, real),
            cached_tokens=real,
            weights_bytes=_over(max, ranks, "weights_bytes"),
            kv_cache_bytes=_over(max, ranks, "kv_cache_bytes"),
            peak_hbm_bytes=_over(max, ranks, "peak_hbm_bytes"),
            peak_flops_per_s=flops if without_datasheet else None,
            hbm_bytes_per_s=copied if without_datasheet else None,
            peak_source="measured matmul and copy in this process" if without_datasheet else None,
            measured_matmul_flops_per_s=flops,
            measured_copy_bytes_per_s=copied,
            device_kind=ranks[0]["device_kind"],
            versions=torch_versions(),
            details={
                **self.options,
                "decode": self.job.decode,
                "micro_batches": ranks[0]["micro_batches"],
                "checked_sequences": len(checked_rows(point, point.input_len + point.output_len)),
                "seed": self.job.seed,
                **({} if point.lengths == "equal" else {"real_tokens": real}),
                **(_streamed(self.stages, ranks) if self.job.point.offloads else {}),
            },
        )

    def close(self) -> None:
        """End the ranks and free their memory."""
        self.rank_group.close()


def _over(which: Callable[[list[float]], float], ranks: Sequence[dict[str, Any]], key: str) -> float | None:
    """min or max of a figure over the ranks; None where a rank does not know it."""
    found = [rank[key] for rank in ranks]
    return None if None in found else which(found)


def _streamed(stages: Sequence[Stage], ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What rank 0 streamed in each stage, and the most memory of this process, which is the rank where there is one."""
    runs = {each.name: ranks[0]["offload"][each.name] for each in stages}
    return {"offload": runs, "peak_resident_bytes": peak_resident_bytes()}


def torch_versions() -> dict[str, str]:
    """PyTorch's version, and that of the CUDA that it was built for."""
    found = {"torch": str(torch.__version__)}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found

"""The engine that runs a point with PyTorch. Importing this module does not import PyTorch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from engines.core.attention import AttentionKeys
from engines.core.dtypes import ACTIVATION_DTYPES
from engines.core.engine import JobProcess, Program, Runner, Team
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.experts import ExpertKeys
from engines.core.extension import check_extensions
from engines.core.point import Point
from engines.core.pruning import as_run
from engines.core.rotary import RotaryKeys
from engines.core.row import Source
from engines.core.weight_groups import check_one_weight_format
from engines.torch.torchrun import TorchrunTeam, process_of, ranks_here
from engines.weights.checkpoint.identity import identity
from engines.weights.checkpoint.source import open_checked
from engines.weights.quality import QualitySettings

if TYPE_CHECKING:
    from engines.torch.job import Job

TOLERANCE: Final = {"float32": 1e-5, "float16": 0.01, "bfloat16": 0.06, "int8": 0.06}
READ: Final = (
    *(each.name for keys in (AttentionKeys, RotaryKeys, ExpertKeys) for each in fields(keys)),
    *("activation", "position", "norm_position", "embedding_norm", "embedding_scale", "residual_scale"),
    *("logit_scale", "logit_softcap", "latent_attention", "expert_parallel", "data_parallel"),
    *("lengths", "padding", "sequence_parallel", "micro_batches", "offload", "offload_kv", "pruning"),
)
"""Keys beyond those of every engine that this one reads."""
OFFLOADS: Final = ("offload", "offload_kv")
DECODES: Final = ("auto", "eager", "graph", "compile")


class TorchEngine(Runner):
    """Loads a point on this machine's GPUs, or on its cores: one rank in this process, several as child processes."""

    name: ClassVar[str] = "torch"
    source: ClassVar[Source] = "measured"
    code: ClassVar[Sequence[str]] = ("weights", "torch", "offload")
    runtime: ClassVar[str | None] = "torch-eager"
    libraries: ClassVar[Sequence[str]] = ("torch", "triton")
    ignored_settings: ClassVar[Collection[str]] = (
        *(each.name for each in fields(QualitySettings)),
        *("decode", "rank_timeout_s", "join_timeout_s", "offload_dir"),
    )

    def __init__(
        self,
        *,
        seed: int = 0,
        checkpoint: str | None = None,
        tolerance: Mapping[str, float] | None = None,
        decode: str = "auto",
        rank_timeout_s: float = 300,
        join_timeout_s: float = 300,
        offload_dir: str | None = None,
        **settings: Any,
    ) -> None:
        """See ``conf/engine/torch.yaml``; further ones are those of QualitySettings. Others are the harness's.

        Raises:
            InvalidRequest: ``decode`` or ``pruning_by`` is not known, ``checkpoint`` or ``teacher`` is not a
                checkpoint, or a text cannot be read.
        """
        if decode not in DECODES:
            raise InvalidRequest("engine.decode", decode, "is not known", f"use one of {', '.join(DECODES)}")
        self.seed = seed
        self.checkpoint = None if checkpoint is None else Path(checkpoint).expanduser()
        names = {each.name for each in fields(QualitySettings)} & settings.keys()
        of_quality = {name: settings[name] for name in names}
        self.quality = QualitySettings(seed=seed, checkpoint=checkpoint, **of_quality)
        self.tolerance = {**TOLERANCE, **(tolerance or {})}
        self.decode = decode
        self.rank_timeout_s = rank_timeout_s
        self.join_timeout_s = join_timeout_s
        self._team: TorchrunTeam | None = None
        self.offload_dir = offload_dir
        plain = {"seed": 0, "decode": "auto"}
        options = {key: getattr(self, key) for key, value in plain.items() if getattr(self, key) != value}
        if self.checkpoint is not None:
            options["checkpoint"] = identity(self.checkpoint)
        if offload_dir is not None:  # a drive has a rate of its own
            options["offload_dir"] = offload_dir
        self.options = options | self.quality.options()

    def process(self) -> JobProcess | None:
        """One of torchrun's, if that started this process among others."""
        return process_of()

    def join(self) -> Team:
        """Meet the other processes of torchrun.

        Raises:
            ShardbenchError: not all came.
        """
        self._team = TorchrunTeam(self.join_timeout_s, 2 * self.rank_timeout_s)
        return self._team

    def prepare(self, point: Point) -> Program:
        """Load, and record or compile the decode step.

        Raises:
            InvalidRequest: the degrees do not multiply to the chips, or the checkpoint is invalid.
            Unsupported: the engine does not support the point, or the devices are not present.
            OutOfMemory: it does not fit.
            TimedOut: a rank did not answer within ``rank_timeout_s``.
        """
        job = self.job(point)
        from engines.torch.program import TorchProgram
        from engines.torch.quality import scores_of
        from engines.torch.rank_group import make_rank_group

        job = replace(job, scores=scores_of(job))
        rank_group = self._team.ranks(job) if self._team else make_rank_group(job, self.rank_timeout_s)
        try:
            return TorchProgram(job, rank_group, self.tolerance_of(point), self.options)
        except BaseException:
            rank_group.close()
            raise

    def program_id(self, point: Point) -> str:
        """A digest of the ranks' operations, traced without values, and of PyTorch's version.

        Raises:
            See :meth:`prepare`; no memory is taken.
        """
        job = self.job(point)
        from engines.torch.program import torch_versions
        from engines.torch.trace import program_id_of

        return program_id_of(job, torch_versions())

    def tolerance_of(self, point: Point) -> float:
        """The largest relative error of logits that the point's number formats explain."""
        return max(self.tolerance[each] for each in (point.weight_dtype, point.act_dtype, point.kv_dtype))

    def job(self, point: Point) -> Job:
        """The job of a point's ranks, after every check that needs no loading.

        Raises:
            See :meth:`prepare`.
        """
        point.check()
        self.check_runtime(point)
        _check_supported(point)
        asked, point = point, as_run(point)
        from engines.torch.devices import check_devices
        from engines.torch.job import Job
        from engines.torch.rank_group import threads_a_rank

        here = ranks_here(point)
        check_devices(point, here)
        job = Job(
            point=point,
            seed=self.seed,
            decode=self._decode_of(point),
            checkpoint=None if self.checkpoint is None else str(self.checkpoint),
            threads=threads_a_rank(point, here),
            timeout_s=2 * self.rank_timeout_s,  # so that the process that waits for the rank times out first
            offload_dir=self.offload_dir,
            unpruned=asked,
            quality=self.quality,
        )
        job.shard(0).check()
        if self.checkpoint is not None:
            open_checked(self.checkpoint, asked.model)
        return job

    def _decode_of(self, point: Point) -> str:
        from engines.torch.rank import MOST_RECORDED

        waiting = [f"{key}={getattr(point, key)}" for key in OFFLOADS if getattr(point, key) != "none"]
        if waiting:
            if self.decode not in ("auto", "eager"):
                raise Unsupported(
                    f"engine.decode={self.decode}: the layers of {waiting[0]} come one by one, driven from the host; "
                    "use engine.decode=eager"
                )
            return "eager"
        recordable = point.chip.kind == "gpu" and point.pipeline_degree == 1 and _has_static_shapes(point)
        if point.padding == "packed":
            # A recording holds each step's own sizes, and a compiler would make a program for each.
            recordable = recordable and point.decode_steps <= MOST_RECORDED
            if self.decode == "compile":
                raise Unsupported("engine.decode=compile: every step of padding=packed has sizes of its own; use eager")
        if self.decode == "auto" and recordable and point.padding == "packed":
            return "graph"
        if self.decode == "auto" and recordable:
            # Only a compiler fuses the conversion of int8 weights into the matmuls that read them.
            return "compile" if point.weight_dtype == "int8" and point.num_chips == 1 and _can_compile() else "graph"
        if self.decode == "auto":
            return "eager"
        if self.decode == "graph" and not recordable:
            raise Unsupported(
                f"engine.decode=graph: needs a GPU and pipeline_parallel=1, not hw={point.chip.name} and "
                f"pipeline_parallel={point.pipeline_degree}{_why_not(point)}; use engine.decode=eager"
            )
        if self.decode == "compile" and point.pipeline_degree > 1:
            raise Unsupported(
                f"engine.decode=compile: needs pipeline_parallel=1, not {point.pipeline_degree}; "
                "use engine.decode=eager"
            )
        if self.decode == "compile" and not _has_static_shapes(point):
            raise Unsupported(f"engine.decode=compile: is not possible{_why_not(point)}; use engine.decode=eager")
        return self.decode


def _has_static_shapes(point: Point) -> bool:
    """Whether no shape depends on values, which a recording and a compiler need."""
    if point.model.num_experts is None:
        return True
    if (point.data_parallel or 1) == (point.expert_parallel or 1) == point.tensor_degree > 1:
        return False  # each rank tells the others how many tokens it sends
    if point.chip.kind != "gpu":
        return True
    import torch

    # PyTorch's grouped matmul reads its groups on the device in bfloat16 on Hopper and later, else on the host.
    return point.act_dtype == "bfloat16" and torch.cuda.get_device_capability()[0] >= 9


def _why_not(point: Point) -> str:
    return "" if _has_static_shapes(point) else ", and experts here take as many tokens as they get"


def _can_compile() -> bool:
    """Whether torch.compile works on a GPU: it needs Triton, and Triton a C compiler."""
    return find_spec("triton") is not None and any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")))


def _check_supported(point: Point) -> None:
    check_extensions(point, "torch", read=READ)
    check_one_weight_format(point)
    for key, allowed in (
        ("weight_dtype", (*ACTIVATION_DTYPES, "int8")),
        ("act_dtype", ACTIVATION_DTYPES),
        ("kv_dtype", ACTIVATION_DTYPES),
        ("ffn_layout", ("auto", "ws_1d")),
        ("attn_sharding", ("auto", "heads")),
        ("collectives", ("auto", "plain")),
        ("partitioner", ("manual",)),
    ):
        value = getattr(point, key)
        if value not in allowed:
            raise Unsupported(f"{key}={value}: engine=torch does not support it; it supports {', '.join(allowed)}")
    if point.model.kv_latent_dim is not None and point.model.attn_bias:
        raise Unsupported("model.attn_bias=true: engine=torch does not run it with kv_latent_dim; use attn_bias=false")
    if point.data_parallel is not None and point.batch_size % point.data_parallel:
        raise Unsupported(
            f"data_parallel={point.data_parallel}: must divide batch_size={point.batch_size} for engine=torch"
        )
    if point.sequence_parallel != "none" and (point.data_parallel or 1) > 1:
        raise Unsupported(
            f"sequence_parallel={point.sequence_parallel}: data_parallel={point.data_parallel} splits sequences over "
            "the same ranks; use one of them"
        )
    if point.mesh_shape is not None:
        raise Unsupported(
            f"mesh_shape={list(point.mesh_shape)}: engine=torch splits by tensor_parallel and pipeline_parallel; "
            "leave mesh_shape out"
        )

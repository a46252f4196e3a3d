"""The small programs' times, a turn: the compiler's schedule beside the datasheet's limit, and measured where chips are."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from engines.compiled.calibration.programs import TURNS, Program, looped, programs
from engines.compiled.cost.account import Account
from engines.compiled.cost.select import cost_model_of
from engines.compiled.cost.timeline import walk
from engines.compiled.cost.tpu import TpuCostModel
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.schedule import Schedule, read_schedule
from engines.compiled.target.select import target_of
from engines.core.chip import LinkConstants
from engines.core.slice import Slice

if TYPE_CHECKING:
    from jax.sharding import Mesh

NEAR: Final = 1.05
"""A time within 5% of the limit needs no reason."""
IDEAL: Final = LinkConstants(link_efficiency=1.0, hop_s=0.0, launch_s=0.0)


@dataclass(frozen=True, kw_only=True)
class CalibrationRow:
    """One program's turn. Seconds; ``measured_s`` is None where no chip ran it.

    ``limit_s`` is the datasheet's: arithmetic at its peak, the bytes that the program moves at HBM's bandwidth, or those
    of its collectives at the links' bandwidth, whichever takes longest. ``reason`` names the largest part of what is
    above it. ``hops`` and ``link_s`` are the collectives' steps between neighbours, and their bytes at full bandwidth:
    what link constants are set by.
    """

    hw: str
    mesh_shape: str
    kind: str
    program: str
    dtype: str
    limit_s: float
    compiled_s: float
    measured_s: float | None = None
    reason: str = ""
    compute_s: float = 0.0
    exposed_s: float = 0.0
    copy_wait_s: float = 0.0
    unknown_s: float = 0.0
    hops: float = 0.0
    link_s: float = 0.0
    error: str = ""


def compiled_rows(slice_: Slice, chosen: Sequence[str] = ()) -> Iterator[CalibrationRow]:
    """Every program compiled for a slice that need not be here; ``chosen`` are kinds, all if empty.

    Raises:
        Unsupported: the compiler rejects the slice.
    """
    mesh = target_of(slice_).make_mesh()
    for program in programs(mesh):
        if not chosen or program.kind in chosen:
            yield row_of(slice_, program, mesh)


def row_of(slice_: Slice, program: Program, mesh: "Mesh") -> CalibrationRow:
    """One program's row; ``error`` is the compiler's own sentence where it rejects the program."""
    import jax

    what = {
        "hw": slice_.chip.name,
        "mesh_shape": "x".join(str(size) for size in slice_.mesh_shape),
        "kind": program.kind,
        "program": program.name,
        "dtype": program.dtype,
    }
    function, arguments = looped(program, mesh)
    try:
        text = function.lower(*arguments).compile().as_text()
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        return CalibrationRow(**what, limit_s=0.0, compiled_s=0.0, error=" ".join(str(error).split())[:160])
    schedule = read_schedule(parse_module(text or ""))
    return CalibrationRow(**what, **timed(schedule, program, slice_))


def timed(schedule: Schedule, program: Program, slice_: Slice) -> Mapping[str, Any]:
    """The figures of a row: a turn's times from the schedule of a program's loop."""
    model = cost_model_of(slice_)
    assert isinstance(model, TpuCostModel)
    account = walk(schedule, model).account
    ideal = walk(schedule, model.with_links(IDEAL)).account
    one_hop = walk(schedule, model.with_links(LinkConstants(link_efficiency=1.0, hop_s=1.0, launch_s=0.0))).account
    peaks, cores = slice_.chip.peak_flops_per_s, model.cores
    peak = peaks.get(program.dtype, peaks["bfloat16"]) / cores  # without a unit of its own a dtype is widened
    limit = max(program.flops / peak, account.memory_s / TURNS, ideal.communication_s / TURNS)
    seconds = account.total_s / TURNS
    return {
        "limit_s": limit,
        "compiled_s": seconds,
        "reason": _reason(limit, account, ideal, program, peaks),
        "compute_s": account.compute_s / TURNS,
        "exposed_s": account.exposed_s / TURNS,
        "copy_wait_s": account.copy_wait_s / TURNS,
        "unknown_s": account.unknown_s / TURNS,
        "hops": one_hop.latency_s / TURNS,
        "link_s": ideal.communication_s / TURNS,
    }


def _reason(limit: float, account: Account, ideal: Account, program: Program, peaks: Mapping[str, float]) -> str:
    """The largest part of the time above the limit, in words; empty if there is next to none."""
    if account.total_s / TURNS <= NEAR * limit:
        return ""
    arithmetic_s = program.flops / peaks["bfloat16"]
    parts = {
        "hops between neighbours": account.latency_s,
        "links carry less payload than their bandwidth": account.communication_s
        - account.latency_s
        - ideal.communication_s,
        "waits for copies": account.copy_wait_s,
        "no rule for its kernel: bytes at HBM bandwidth": account.unknown_s,
    }
    computed = "the compiler's cycles above the peak" if arithmetic_s else "the compiler's cycles above HBM's bandwidth"
    if program.whole_bytes and not program.flops:
        computed = "work on the chip before and after the links"
    if program.flops and program.dtype not in peaks:
        computed = f"no unit for {program.dtype}: it is widened first"
    known = account.compute_s - account.unknown_s
    parts[computed] = known if program.whole_bytes else known - limit * TURNS
    return max(parts, key=lambda name: parts[name])


def measured_s(program: Program, mesh: "Mesh", repeats: int = 5) -> float:
    """The median time of a turn on the devices of a mesh, in seconds."""
    import jax
    import jax.numpy as jnp

    function, shapes = looped(program, mesh)
    arguments = [jax.device_put(jnp.ones(each.shape, each.dtype), each.sharding) for each in shapes]
    jax.block_until_ready(function(*arguments))
    samples = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        samples.append(time.perf_counter() - start)
    return sorted(samples)[len(samples) // 2] / TURNS


def cells_of(row: CalibrationRow) -> dict[str, str]:
    """A row's cells in a table: seconds with four digits."""
    cells = {}
    for key, value in asdict(row).items():
        cells[key] = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return cells

"""A row: the result for one point, in the one format of all evidence."""

from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Final, Literal

from engines.core.errors import ShardbenchError
from engines.core.point import Point

SCHEMA_VERSION: Final = 2
"""Rows of version 1 have no ``program_id`` and no ``code_id``; their ``point_id`` held the code too."""

PROGRAM: Final = "program"
"""The phase of a row of a program that somebody else wrote; no point has it."""
Source = Literal["measured", "compiled", "predicted", "published"]
Status = Literal["ok", "oom", "unsupported", "failed", "timeout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Seconds, bytes, FLOP/s and fractions; None where a value is unknown or does not apply.

    The keys of the point come first, as they ran: a choice that was left to the engine holds what it chose, and
    ``chosen`` names those keys. Memory figures are for one chip. ``peak_flops_per_s`` is one chip's, the denominator
    of ``mfu``, and ``peak_source`` says whose figure it is. ``point_id`` is a digest of what was asked,
    ``program_id`` of what ran, and ``code_id`` of the source and libraries that made it. ``bench/rows/metrics.py``
    defines the rates. An imported row holds "" or None for what nobody stated; ``origins`` says of each of its values
    whether the file or the user stated it, or which rule derived it. A row of the phase ``serve`` has 0 for a batch or
    length that is not one number, and ``load`` holds what the server was asked and how requests fared. One of the phase
    :data:`PROGRAM` is a program of somebody else's: ``model`` is its name, and what only a Transformer has is 0 or "".
    """

    # The point.
    model: str  # a name of conf/model, with what was changed: tiny+num_layers=2
    hw: str  # a name of conf/hw
    num_chips: int
    engine: str  # a name of conf/engine
    runtime: str | None = None  # a name of conf/runtime; None in rows of before it was a key
    phase: str
    batch_size: int
    input_len: int
    output_len: int
    first_token: str | None = None
    mesh_shape: list[int] | None = None
    ffn_layout: str | None = None
    attn_sharding: str | None = None
    latent_attention: str | None = None
    expert_axes: str | None = None
    expert_dispatch: str | None = None
    collectives: str | None = None
    partitioner: str | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    expert_parallel: int | None = None
    data_parallel: int | None = None
    expert_capacity: float | None = None
    routing_skew: float | None = None
    weight_dtype: str = ""
    act_dtype: str = ""
    kv_dtype: str = ""
    weight_group_size: int | None = None
    head_dtype: str | None = None  # None: weight_dtype
    offload: str | None = None  # None: everything is on the chip
    offload_kv: str | None = None
    request_rate_per_s: float | None = None  # serve rows of ours, as the three that follow; others' say it in load
    num_requests: int | None = None
    ttft_limit_s: float | None = None
    tpot_limit_s: float | None = None
    pruning: str | None = None  # None: nothing is left out
    speculative: str | None = None  # None: no speculation
    draft_model: str | None = None  # a name of conf/model
    draft_len: int | None = None
    draft_layers: int | None = None
    acceptance_rate: float | None = None  # as asked, else as measured
    exit_threshold: float | None = None
    exit_every: int | None = None
    exit_rate: float | None = None  # as asked, else as measured
    planner: str | None = None  # None in rows of before it was a key
    shardings: str | None = None  # of every operator, as engines/core/shardings.py reads them; None: a layout's
    lengths: str | None = None  # law of the prompts' lengths; None: all have input_len
    padding: str | None = None  # padded | packed; None where there is nothing to pad
    sequence_parallel: str | None = None  # none | norms; None where nothing is split by ranks of tensors
    micro_batches: int | None = None
    chosen: list[str] = field(default_factory=list)  # keys above that the engine chose
    # What this is.
    schema_version: int = SCHEMA_VERSION  # of this format
    point_id: str = ""  # fingerprint of the point
    program_id: str | None = None  # digest of what ran
    code_id: str | None = None  # digest of the source that answered
    created_at: str = ""  # UTC, ISO 8601
    sweep: str | None = None  # sweep_name of the run
    claim: str | None = None  # ID.GENERATION of its writer's lease; of the rows of an ID the last generation counts
    source: Source  # measured | compiled | predicted | published
    system: str | None = None  # published rows: the program that was measured
    reference: str | None = None  # published rows: where the figure is from
    origins: dict[str, str] = field(default_factory=dict)  # imported rows: value → file: KEY, user: KEY or rule: NAME
    load: dict[str, Any] = field(default_factory=dict)  # serve rows: rates, counts and statistics over requests
    status: Status  # ok | oom | unsupported | failed | timeout
    error: str | None = None  # why the status is not ok, in one sentence
    valid: bool = False  # ok and no share of a peak above 1; a measured row also warm, tight and checked
    invalid_reason: str | None = None  # why it is not valid
    # Times.
    latency_s: float | None = None
    latency_low_s: float | None = None  # of a prediction: below it with a probability of 10%
    latency_high_s: float | None = None  # above it with a probability of 10%
    ttft_s: float | None = None
    step_time_s: float | None = None
    tpot_s: float | None = None
    samples_s: list[float] | None = None  # every sample of the latency
    n: int | None = None
    mean: float | None = None
    median: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    p90: float | None = None
    p99: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    ci_level: float | None = None  # of the interval of the median
    process_medians_s: list[float] | None = None  # repeat=N: median of each process, whose median is latency_s
    process_spread: float | None = None  # repeat=N: standard deviation of these medians over their median
    warmup_runs: int | None = None  # runs before the first sample
    compile_s: float | None = None
    took_s: float | None = None  # wall time of answering the point alone: preparing, checking and all runs
    # Rates.
    tokens_per_s: float | None = None
    tokens_per_s_per_chip: float | None = None
    tokens_per_s_per_user: float | None = None
    mfu: float | None = None
    mbu: float | None = None
    peak_flops_per_s: float | None = None
    hbm_bytes_per_s: float | None = None
    peak_source: str | None = None  # whose figure peak_flops_per_s is
    measured_matmul_flops_per_s: float | None = None
    measured_copy_bytes_per_s: float | None = None
    mfu_of_matmul: float | None = None
    mbu_of_copy: float | None = None
    cost_chip_s_per_token: float | None = None
    tokens_per_turn: float | None = None  # of speculative decoding
    mean_layers: float | None = None  # of early exit: layers that a generated token passed
    published_mfu: float | None = None
    cost_usd_per_mtok: float | None = None  # by prices when it is read; no stored row has it
    price: str | None = None  # whose prices, of which day
    energy_j: float | None = None  # of all chips, in latency_s or (serve) the requests' time; stored where measured
    energy_source: str | None = None  # nvml_total_energy | nvml_power | tdp
    # Where the time goes.
    compute_s: float | None = None
    memory_s: float | None = None
    communication_s: float | None = None
    overlapped_s: float | None = None
    overhead_s: float | None = None
    # Memory of one chip.
    peak_hbm_bytes: float | None = None
    weights_bytes: float | None = None
    kv_cache_bytes: float | None = None
    activations_bytes: float | None = None
    # Quality of the output.
    max_relative_error: float | None = None
    kl_divergence: float | None = None
    bf16_max_relative_error: float | None = None
    bf16_kl_divergence: float | None = None
    quality_kl: float | None = None  # of a model made smaller: mean KL(whole model ‖ this one) a token, in nats
    quality_agreement: float | None = None  # share of tokens whose most likely successor is the same
    quality_perplexity: float | None = None  # on the held-out text of engine.text
    # Where it ran.
    git_sha: str | None = None  # of shardbench's checkout
    git_dirty: bool | None = None  # whether the code differed from git_sha
    versions: dict[str, str] = field(default_factory=dict)  # of Python and the libraries
    device_kind: str | None = None  # what the devices call themselves
    host: str | None = None  # name of the machine
    xla_flags: str | None = None  # measured rows: XLA_FLAGS of the process that ran
    cpu_affinity: list[int] | None = None  # measured rows: numbers of the cores that it could use
    conditions: dict[str, Any] | None = None  # measured rows: what else changes an answer, compared before it is reused
    background: dict[str, Any] | None = None  # measured rows: others' share of the cores, clocks, throttling, GPU users
    details: dict[str, Any] = field(default_factory=dict)  # the engine's own, interpreted by no other

    def to_dict(self) -> dict[str, Any]:
        """Plain values in declaration order, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Row":
        """Read a row of this schema version or an older one.

        Raises:
            ShardbenchError: a newer version, an unknown key, or a key that every row must have is missing.
        """
        version = content.get("schema_version")
        if not isinstance(version, int) or version < 1:
            raise ShardbenchError(f"schema_version={version}: is not a row of shardbench; it must be an integer ≥ 1")
        if version > SCHEMA_VERSION:
            raise ShardbenchError(
                f"schema_version={version}: was written by a newer shardbench, which reads it; this one "
                f"reads up to {SCHEMA_VERSION}"
            )
        unknown = content.keys() - ROW_FIELDS
        if unknown:
            raise ShardbenchError(f"unknown key {sorted(unknown)[0]}: is in no row of schema_version={version}")
        missing = REQUIRED_FIELDS - content.keys()
        if missing:
            raise ShardbenchError(f"missing key {sorted(missing)[0]}: every row has it")
        return cls(**content)


ROW_FIELDS: Final = frozenset(each.name for each in fields(Row))
POINT_FIELDS: Final = ("model", "hw", *(each.name for each in fields(Point) if each.name not in ("model", "chip")))
"""The row's keys that say what was asked, in order: those of a point, with the names of its model and chip."""
REQUIRED_FIELDS: Final = frozenset(
    each.name for each in fields(Row) if each.default is MISSING and each.default_factory is MISSING
)

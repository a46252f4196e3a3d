"""Any methods, asked together, make a row whose figures can be, or are refused in one sentence with a remedy."""

import math
import re

from builders.points import point
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.measure.timing import TimingConfig
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask
from bench.run.worker import answer
from bench.sweep.catalog import load_group, load_model
from engines.core.errors import InvalidRequest, Unsupported

ENGINE = make_engine(load_group("engine", "analytic"))
POINT = {
    "model": ["palm-62b", "llama-3-70b", "mixtral-8x7b"],
    "hw": ["tpu-v4", "h100-80gb"],
    "num_chips": [1, 8, 16],
    "phase": ["prefill", "decode", "generate"],
    "batch_size": [1, 64, 1024],
    "input_len": [1, 256],
    "output_len": [1, 32],
    "weight_dtype": ["bfloat16", "int8", "float16"],
}
METHODS = {
    "pruning": ["heads:0.5", "columns:0.5+2:4", "layers:0.5"],
    "speculative": ["draft", "self", "ngram"],
    "draft_model": ["palm-8b", "llama-3-8b"],
    "draft_len": [1, 8],
    "acceptance_rate": [0.0, 0.5, 1.0],
    "exit_threshold": [0.5],
    "exit_every": [1, 10],
    "exit_rate": [0.0, 1.0],
    "lengths": ["uniform", "lognormal", "trace"],
    "padding": ["padded", "packed"],
    "sequence_parallel": ["norms"],
    "tensor_parallel": [1, 4, 8],
    "pipeline_parallel": [1, 2],
    "micro_batches": [2],
    "data_parallel": [2],
    "offload": ["host", "nvme"],
    "offload_kv": ["host"],
    "partitioner": ["gspmd"],
    "attn_sharding": ["heads", "batch", "sequence"],
    "ffn_layout": ["ws_1d", "ws_2d", "wg_x"],
    "first_token": ["prefill"],
    "kv_dtype": ["int8"],
}
"""Values of the keys of a point; planner=alpa solves an integer program and is walked by its own tests."""
NEEDS = {
    "draft_model": ("speculative", "draft"),
    "draft_len": ("speculative", "draft"),
    "acceptance_rate": ("speculative", "draft"),
    "exit_every": ("exit_threshold", 0.5),
    "exit_rate": ("exit_threshold", 0.5),
    "padding": ("lengths", "uniform"),
    "micro_batches": ("pipeline_parallel", 2),
}
"""What a key means nothing without; drawn with it, so that most points get further than that refusal."""
NOT_NEGATIVE = (
    *("ttft_s", "compute_s", "memory_s", "communication_s", "overlapped_s", "overhead_s", "weights_bytes"),
    *("kv_cache_bytes", "activations_bytes", "peak_hbm_bytes", "latency_low_s", "energy_j"),
)
SENTENCE = re.compile(r"[a-z_]+=.*; .+")
"""The key, its value, what is wrong with it, and what to do instead."""


@st.composite
def asked(draw):
    keys = {key: draw(st.sampled_from(values)) for key, values in POINT.items()}
    for key in draw(st.lists(st.sampled_from(list(METHODS)), min_size=1, max_size=4, unique=True)):
        if key in NEEDS:
            keys.setdefault(*NEEDS[key])
        keys[key] = draw(st.sampled_from(METHODS[key]))
    if keys.get("speculative", "none") != "none":
        keys.setdefault("acceptance_rate", 0.7)
    if keys.get("speculative") == "draft":
        keys.setdefault("draft_model", "llama-3-8b" if keys["model"] == "llama-3-70b" else "palm-8b")
    if "exit_threshold" in keys:
        keys.setdefault("exit_rate", 0.3)
    return keys


@settings(max_examples=100)
@given(keys=asked())
def test_any_methods_are_answered_with_figures_that_can_be_or_refused_with_a_remedy(keys):
    draft = keys.get("draft_model")
    try:
        of = point(engine="analytic", **{**keys, "draft_model": None if draft is None else load_model(draft)})
        of.check()
    except (InvalidRequest, Unsupported) as error:
        refused(str(error))
        return
    task = PointTask(point=of, point_id="", source="predicted", sweep=None)
    row = answer(ENGINE, task, TimingConfig())
    if row.status in ("unsupported", "oom"):
        assert row.latency_s is None
        assert "too much" in row.error if row.status == "oom" else refused(row.error)
        return
    assert (row.status, row.valid) == ("ok", True), row.error or row.invalid_reason
    assert row.latency_s > 0
    assert row.cost_chip_s_per_token > 0
    assert 0 < row.mfu <= 1
    assert row.mbu is None or 0 < row.mbu <= 1
    assert (row.step_time_s is not None and row.step_time_s > 0) == (of.decode_steps > 0 and keys["phase"] != "prefill")
    figures = {name: getattr(row, name) for name in NOT_NEGATIVE if getattr(row, name) is not None}
    assert all(math.isfinite(value) and value >= 0 for value in figures.values()), figures
    parts = row.compute_s + row.memory_s + row.communication_s + row.overhead_s - row.overlapped_s
    assert math.isclose(parts, row.latency_s, rel_tol=1e-9)


def refused(sentence):
    """Whether it is one sentence with the key, its value and the remedy."""
    assert SENTENCE.fullmatch(sentence), sentence
    return True

"""What layers that come from the host cost: the pipeline's closed form, its rates, and what fits."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.points import point as build_point
from hypothesis import given
from hypothesis import strategies as st

from bench.sweep.catalog import load_model
from engines.analytic.cost import Cost
from engines.analytic.engine import AnalyticEngine
from engines.analytic.grid import grid_of
from engines.analytic.offload import LayerBytes, streamed
from engines.offload.host_link import HOST_LINK_SHARE

ROOT = Path(__file__).parents[2]
ZERO = np.zeros(1)
KEYS = {
    "model": "llama-2-70b",
    "hw": "h100-80gb",
    "num_chips": 1,
    "phase": "decode",
    "batch_size": 16,
    "input_len": 512,
    "output_len": 32,
    "weight_dtype": "float16",
}


def answer(make_point, **keys):
    (found,) = AnalyticEngine().estimate([make_point(**{**KEYS, **keys})])
    assert found.status == "ok", found.error
    return found


def simulated(layers, compute_s, link_s, drive_s):
    """The time of the pipeline, event by event: a drive of two buffers, a link of two, a chip."""
    read, copied, computed = [], [], []
    for number in range(layers):
        room = copied[number - 2] if number >= 2 else 0.0
        read.append(max(read[-1] if read else 0.0, room) + drive_s)
        room = computed[number - 2] if number >= 2 else 0.0
        copied.append(max(copied[-1] if copied else 0.0, read[-1], room) + link_s)
        computed.append(max(computed[-1] if computed else 0.0, copied[-1]) + compute_s)
    return computed[-1]


seconds = st.floats(0.0, 10.0)


@given(st.integers(1, 6), seconds, seconds, seconds)
def test_the_closed_form_is_the_time_of_the_pipeline_event_by_event(passes, compute_s, link_s, drive_s):
    grid = grid_of([build_point(**KEYS, engine="analytic", offload="nvme")])
    layers = int(grid.layers[0])
    cost = Cost(
        compute_s=np.asarray([compute_s * layers]),
        memory_s=ZERO,
        communication_s=ZERO,
        overhead_s=ZERO,
        overlapped_s=ZERO,
    )
    weights = np.asarray([1e9])
    rates = {"host_bytes_per_s": 1e9 / max(link_s, 1e-12), "nvme_bytes_per_s": 1e9 / max(drive_s, 1e-12)}
    grid = replace(grid, **{name: np.asarray([rate]) for name, rate in rates.items()})
    of_layer = LayerBytes(weights=weights, cache_read=ZERO, cache_new=ZERO)
    found = streamed(grid, cost, of_layer, np.asarray([float(passes)]))
    assert found.latency_s[0] == pytest.approx(simulated(passes * layers, compute_s, link_s, drive_s), abs=1e-6)


def test_a_step_that_waits_for_the_link_takes_the_bytes_of_all_layers_over_its_rate(make_point):
    model = load_model("llama-2-70b")
    layers = (model.params - 2 * model.vocab_size * model.d_model) * 2
    found = answer(make_point, offload="host")
    # Norms are not matrices, and the closed form counts matrices.
    assert found.step_time_s == pytest.approx(layers / (HOST_LINK_SHARE * 64e9), rel=1e-3)
    by_drive = answer(make_point, offload="nvme")
    assert by_drive.step_time_s == pytest.approx(layers / 6.9e9, rel=2e-3)


def test_a_batch_whose_compute_takes_longer_than_the_link_costs_what_it_does_on_the_chip(make_point):
    keys = {"model": "llama-2-7b", "phase": "prefill", "batch_size": 32, "input_len": 2048, "output_len": 0}
    on_chip, offloaded = (answer(make_point, **keys, offload=where) for where in ("none", "host"))
    first = offloaded.latency_s - on_chip.latency_s
    assert 0 < first < 0.02 * on_chip.latency_s
    assert offloaded.facts.communication_s > 0


def test_two_layers_and_the_tables_are_what_is_left_on_the_chip(make_point):
    model = load_model("llama-2-70b")
    found = answer(make_point, offload="host")
    tables = 2 * model.vocab_size * model.d_model * 2
    layer = (model.params - 2 * model.vocab_size * model.d_model) * 2 / model.num_layers
    assert found.facts.weights_bytes == pytest.approx(tables + 2 * layer, rel=1e-3)


def test_a_turn_of_speculation_is_one_pass_of_the_bytes_that_do_not_stay(make_point):
    layer_s = 2 * (8192 * (64 + 2 * 8) * 128 + 64 * 128 * 8192 + 3 * 8192 * 28672) / (HOST_LINK_SHARE * 64e9)
    asked = {"offload": "host", "draft_len": 4, "acceptance_rate": 0.8}
    looked_up = answer(make_point, **asked, speculative="ngram")
    turns = looked_up.facts.details["turns"]
    assert looked_up.latency_s == pytest.approx(turns * 80 * layer_s, rel=2e-3)
    found = answer(make_point, **asked, speculative="self", draft_layers=8)
    draft_s = turns * found.facts.details["draft_s"]
    # The 8 layers that stay pass a turn's tokens together as long as about one of the 4 that they proposed.
    assert found.latency_s - turns * 72 * layer_s - draft_s == pytest.approx(draft_s / 4, rel=0.3)
    eight = 8 * layer_s * HOST_LINK_SHARE * 64e9
    assert found.facts.weights_bytes - looked_up.facts.weights_bytes == pytest.approx(eight, rel=1e-3)
    waiting = [each.facts.details["host_bytes"] for each in (looked_up, found)]
    assert waiting[0] - waiting[1] == pytest.approx(eight, rel=1e-3)


def test_a_verifying_pass_brings_the_cache(make_point):
    asked = {"offload_kv": "host", "offload": "host", "speculative": "ngram", "draft_len": 4, "acceptance_rate": 0.8}
    found, alone = (answer(make_point, **{**asked, "offload_kv": where}) for where in ("host", "none"))
    turns = found.facts.details["turns"]
    cache = 16 * (512 + 32 / 2) * 2 * 8 * 128 * 2 * 80
    assert (found.latency_s - alone.latency_s) / turns == pytest.approx(cache / (HOST_LINK_SHARE * 64e9), rel=0.02)


def test_an_offloaded_cache_makes_room_and_takes_the_link(make_point):
    many = {"batch_size": 512, "offload": "host"}
    (refused,) = AnalyticEngine().estimate([make_point(**{**KEYS, **many})])
    assert refused.status == "oom"
    found = answer(make_point, **many, offload_kv="host")
    alone = answer(make_point, offload="host")
    assert found.facts.kv_cache_bytes == pytest.approx(refused.facts.kv_cache_bytes * 2 / 80)
    seen = 512 + (32 + 1) / 2
    cache = 512 * seen * 2 * 8 * 128 * 2 * 80
    assert found.step_time_s - alone.step_time_s == pytest.approx(cache / (HOST_LINK_SHARE * 64e9), rel=0.01)


@pytest.mark.parametrize(("batch", "cached"), [(1024, True), (256, False)])
def test_a_stored_step_of_the_study_is_by_hand_the_bytes_that_pass_the_link(batch, cached):
    """Llama 2 70B in float16 on an H100, 512 in and 32 out: matrices of 80 layers, keys and values of 8 heads."""
    asked = {"model": "llama-2-70b", "weight_dtype": "float16", "batch_size": batch, "offload": "host"}
    asked |= {"engine": "analytic", "offload_kv": "host" if cached else None}
    (row,) = [row for row in rows_in(ROOT / "results/offload") if all(row[key] == asked[key] for key in asked)]
    layer = 2 * (8192 * (64 + 2 * 8) * 128 + 64 * 128 * 8192 + 3 * 8192 * 28672)
    keys_and_values = batch * (512 + (32 + 1) / 2) * 2 * 8 * 128 * 2 * cached
    step_s = 80 * (layer + keys_and_values) / (0.85 * 64e9)
    assert row["step_time_s"] == pytest.approx(step_s, rel=1e-3)


def rows_in(folder):
    """Stored rows as mappings, whatever files they lie in."""
    texts = (path.read_text(encoding="utf-8") for path in sorted((folder / "rows").glob("*.jsonl")))
    return [json.loads(line) for text in texts for line in text.splitlines()]


def test_the_host_holds_the_cache_of_all_tokens_whichever_phase_needs_most_of_the_chip(make_point):
    found = answer(make_point, phase="generate", batch_size=1024, offload="nvme", offload_kv="host")
    assert found.facts.details["host_bytes"] == pytest.approx(1024 * (512 + 32) * 2 * 8 * 128 * 2 * 80)


def test_a_chip_without_a_drive_and_stages_are_refused_by_their_keys(make_point):
    asked = [
        {"hw": "tpu-v5e", "num_chips": 4, "weight_dtype": "bfloat16", "offload": "nvme"},
        {"num_chips": 2, "pipeline_parallel": 2, "offload": "host"},
    ]
    errors = [AnalyticEngine().estimate([make_point(**{**KEYS, **keys})])[0].error for keys in asked]
    assert "nvme_bytes_per_s is not known; add it to conf/hw/tpu-v5e.yaml" in errors[0]
    assert "pipeline_parallel=2" in errors[1]


def test_rates_of_a_host_tell_questions_apart_only_where_they_are_asked(make_point):
    def asked(offload, **rates):
        point = make_point(**KEYS, offload=offload)
        return replace(point, chip=replace(point.chip, **rates)).fingerprint("test")

    assert asked("none") == asked("none", host_link_bytes_per_s=1e9, nvme_bytes_per_s=None)
    assert asked("host") != asked("host", host_link_bytes_per_s=1e9)
    assert len({asked(each) for each in ("none", "host", "nvme")}) == 3

"""Methods beyond layouts, compiled: speculation, early exit, stages of a pipeline, a cache in host memory."""

from functools import partial

import pytest
from builders.points import point as build_point
from compiled_cases import answer_to, ask

from bench.sweep.catalog import load_model
from engines.core.early_exit import Leaving
from engines.core.speculation import turns_until

POINT = partial(
    build_point,
    model="tiny",
    hw="tpu-v5e",
    engine="compiled",
    phase="decode",
    num_chips=1,
    batch_size=4,
    input_len=8,
    output_len=4,
)


def found(**keys):
    answer = answer_to(POINT(**keys))
    assert answer.status == "ok", answer.error
    return answer


def test_speculation_is_its_turns_of_steps_of_the_draft_and_a_pass_that_verifies():
    """The programs do not depend on the rate, and the time is that of the turns that it takes."""
    keys = {"speculative": "self", "draft_layers": 1, "draft_len": 3}
    some, all_ = (found(**keys, acceptance_rate=rate) for rate in (0.5, 1.0))
    details = some.facts.details
    assert details["turns"] == turns_until(0.5, 3, 4, 4)
    assert some.latency_s == pytest.approx(details["turns"] * (details["draft_s"] + details["verify_s"]))
    # Everything accepted, one turn of 3 + 1 tokens makes all four.
    assert (all_.facts.details["turns"], all_.facts.tokens_per_turn) == (1, 4)
    assert all_.latency_s == pytest.approx(details["draft_s"] + details["verify_s"])
    looked_up = found(speculative="ngram", draft_len=3, acceptance_rate=1.0)
    assert looked_up.latency_s == pytest.approx(looked_up.facts.details["verify_s"])
    assert looked_up.latency_s < all_.latency_s


@pytest.mark.parametrize("hw", ["tpu-v5e", "h100-80gb"])
@pytest.mark.thorough(every=2)
def test_a_step_with_exits_is_the_mean_of_its_ways_and_linear_in_how_often_they_are_taken(hw):
    keys = {"hw": hw, "exit_threshold": 0.9, "exit_every": 1}
    rates = (0.0, 0.4, 1.0)
    nobody, some, everybody = (found(**keys, exit_rate=rate) for rate in rates)
    assert (nobody.facts.mean_layers, everybody.facts.mean_layers) == (4, 1)
    assert nobody.latency_s > some.latency_s > everybody.latency_s
    # A part of the layers and the exit behind it take the same wherever they are, so that the time is on a plane over
    # how many of the first three parts, and of the last, run.
    before, after = [], []
    for rate in rates:
        stays = Leaving(4, 1, rate, 4).stays(4)
        before.append(stays[:-1].sum())
        after.append(stays[-1])
    of_part = found(**keys, exit_rate=0.1)
    stays = Leaving(4, 1, 0.1, 4).stays(4)
    slope = _plane(before, after, [each.latency_s for each in (nobody, some, everybody)])
    assert of_part.latency_s == pytest.approx(slope[0] + slope[1] * stays[:-1].sum() + slope[2] * stays[-1])


def _plane(before, after, seconds):
    import numpy as np

    return np.linalg.solve(np.stack([np.ones(3), before, after], axis=1), np.asarray(seconds))


@pytest.mark.parametrize("hw", ["tpu-v5e", "a100-80gb"])
@pytest.mark.thorough(every=2)
def test_stages_pass_micro_batches_on_and_hold_their_own_layers(hw):
    keys = {"hw": hw, "num_chips": 4, "tensor_parallel": 2, "pipeline_parallel": 2, "sequence_parallel": "norms"}
    staged = found(**keys)
    assert staged.facts.resolved["micro_batches"] == 2
    assert staged.facts.resolved["ffn_layout"] == "ws_1d"
    # Two turns a step, one more to fill the pipeline; each stage has half of the layers, of all sequences.
    assert staged.facts.details["hot_loop"]["decode"]["turns"] in (4 * 2 + 1, (4 * 2 + 1) * 2)
    assert staged.facts.details["seconds_by_kind"]["collective-permute"] > 0
    one = found(hw=hw, num_chips=4, ffn_layout="ws_1d", attn_sharding="heads")
    # The one key/value head is on every rank, of the layers of its stage.
    assert staged.facts.kv_cache_bytes == one.facts.kv_cache_bytes / 2
    # A quarter of the layers' weights either way, and of the tables a half in the place of a quarter.
    model = load_model("tiny")
    tables = (1 if model.tied_embedding else 2) * model.vocab_size * model.d_model * 2
    assert staged.facts.weights_bytes - one.facts.weights_bytes == pytest.approx(tables / 4, rel=0.05)


def test_a_cache_in_host_memory_takes_the_link_and_is_not_held():
    kept, fetched = found(), found(offload_kv="host")
    assert fetched.facts.kv_cache_bytes == 0
    assert fetched.facts.weights_bytes == kept.facts.weights_bytes
    # 4 steps fetch 12 positions of 4 layers, 4 sequences and every head, and send one of them back.
    cache = kept.facts.kv_cache_bytes
    assert fetched.facts.communication_s == pytest.approx(4 * cache * (1 + 1 / 12) / (0.85 * 15e9), rel=0.35)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"speculative": "ngram"}, "acceptance_rate=auto: engine=compiled does not run speculative=ngram"),
        ({"exit_threshold": 0.9}, "exit_rate=auto: engine=compiled does not run exit_threshold=0.9"),
        ({"offload_kv": "host", "hw": "h100-80gb"}, "JAX's absent GPUs have no memories"),
        ({"offload_kv": "host", "hw": "tpu-7x"}, "tpu-7x.yaml, or give +hw.host_link_bytes_per_s="),
        ({"pipeline_parallel": 3, "num_chips": 4}, "pipeline_parallel=3"),
        ({"pipeline_parallel": 8, "num_chips": 8}, "a divisor of the layers"),
        ({"offload": "host", "exit_threshold": 0.9, "exit_rate": 0.5}, "offload=host"),
    ],
)
def test_what_is_not_compiled_is_refused_by_its_key(keys, words):
    answer, _ = ask(POINT(**keys))
    assert answer.status == "unsupported"
    assert words in answer.error


def test_unrolled_layers_have_no_loop_to_leave_fetch_for_or_cut():
    for keys in (
        {"exit_threshold": 0.9, "exit_rate": 0.5},
        {"offload_kv": "host"},
        {"pipeline_parallel": 2, "num_chips": 4},
    ):
        answer, _ = ask(POINT(**keys), unroll_layers=True)
        assert "engine.unroll_layers=" in answer.error

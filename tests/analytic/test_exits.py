"""Early exit predicted: what is left of a pass, and what is added to it."""

from dataclasses import replace
from functools import partial

import pytest
from builders.points import point as build_point

from bench.sweep.catalog import load_model
from engines.analytic.constants import constants_of, stream_of
from engines.analytic.engine import AnalyticEngine

ONE = partial(
    build_point,
    model="palm-8b",
    hw="tpu-v4",
    engine="analytic",
    phase="decode",
    num_chips=1,
    batch_size=4,
    input_len=1024,
    output_len=32,
)
MANY = partial(ONE, model="palm-540b", num_chips=64, batch_size=64)
GPUS = partial(ONE, model="llama-3-70b", hw="h100-80gb", num_chips=8)


def answer(point):
    (found,) = AnalyticEngine().estimate([point])
    assert found.status == "ok", found.error
    return found


@pytest.mark.parametrize("point", [MANY, GPUS])
def test_the_more_leave_the_less_a_step_takes_and_those_that_never_do_only_add_exits(point):
    rates = [0.0, 0.1, 0.3, 0.6, 1.0]
    found = AnalyticEngine().estimate([point(exit_threshold=0.9, exit_rate=rate) for rate in rates])
    times = [each.latency_s for each in found]
    assert times == sorted(times, reverse=True)
    assert times[0] > answer(point()).latency_s > times[-1]
    layers = point().model.num_layers
    assert [found[0].facts.mean_layers, found[-1].facts.mean_layers] == [layers, layers // 4]
    # All layers' weights and caches are held, whoever runs them.
    assert {each.facts.peak_hbm_bytes for each in found} == {answer(point()).facts.peak_hbm_bytes}


def test_where_all_leave_at_once_memory_is_by_hand_that_of_the_layers_a_head_and_the_keys_of_the_others():
    few = replace(load_model("palm-8b"), num_layers=8)
    left, shallow = (
        answer(each).facts.memory_s / 32 for each in (ONE(exit_threshold=0.9, exit_rate=1.0), ONE(model=few))
    )
    constants = constants_of(ONE())
    hbm, stream = 1.2e12 * constants.hbm_efficiency, getattr(constants, stream_of("bfloat16"))
    # bfloat16; one key/value head of 256 for 4096 of d_model, in 24 skipped layers; a vocabulary of 256,000.
    keys_and_values = 24 * 2 * 256 * 4096 * 2 / (hbm * stream)
    head = 256_000 * 4096 * 2 / hbm
    assert left - shallow == pytest.approx(keys_and_values + head, rel=1e-6)


def test_a_prompt_is_read_by_all_layers_and_other_points_are_as_alone():
    plain, leaving = ONE(phase="generate"), ONE(phase="generate", exit_threshold=0.9, exit_rate=0.5)
    together = AnalyticEngine().estimate([plain, leaving])
    assert together[0].latency_s == answer(plain).latency_s
    assert together[1].latency_s == answer(leaving).latency_s
    assert together[1].ttft_s == pytest.approx(together[0].ttft_s)


@pytest.mark.parametrize(
    ("point", "keys", "words"),
    [
        (MANY, {}, "exit_rate=auto: engine=analytic does not run exit_threshold=0.9; give exit_rate=0.3"),
        (GPUS, {"exit_rate": 0.5, "pipeline_parallel": 2}, "pipeline_parallel=2: exit_threshold=0.9 is modelled"),
        (MANY, {"exit_rate": 0.5, "offload": "host"}, "exit_threshold=0.9: is not modelled with offload=host"),
    ],
)
def test_what_it_cannot_predict_is_refused_by_its_key(point, keys, words):
    (found,) = AnalyticEngine().estimate([point(exit_threshold=0.9, **keys)])
    assert words in found.error

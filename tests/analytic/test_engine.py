"""What the engine answers: figures that add up, laws that hold, and refusals that say why."""

from dataclasses import replace

import pytest
from builders.points import point as build_point
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.run.load_engine import make_engine
from bench.sweep.catalog import load_chip, load_group, load_model
from engines.analytic.engine import AnalyticEngine
from engines.core.engine import Estimate, Estimator
from engines.core.layout import FFN_LAYOUTS
from engines.core.model import Model
from engines.core.point import Point
from engines.core.runtime import shipped

ENGINE = AnalyticEngine()
LAYOUTS = [name for name in FFN_LAYOUTS if name != "auto"]


def ask(point: Point) -> Estimate:
    return ENGINE.estimate([point])[0]


def test_the_config_makes_an_estimator():
    engine = make_engine(load_group("engine", "analytic"))
    assert isinstance(engine, Estimator)
    assert (engine.name, engine.source) == ("analytic", "predicted")


@settings(max_examples=60, deadline=None)
@given(
    model=st.sampled_from(["palm-8b", "palm-62b", "palm-540b", "gpt-20b", "llama-3-70b"]),
    hw=st.sampled_from(["tpu-v4", "tpu-v5e", "a100-80gb", "h200"]),
    phase=st.sampled_from(["prefill", "decode", "generate"]),
    chips=st.sampled_from([1, 4, 8, 64, 256]),
    batch=st.sampled_from([1, 4, 64, 512]),
    length=st.integers(1, 1900),
)
def test_the_parts_add_up_to_the_latency(model, hw, phase, chips, batch, length):
    asked = build_point(
        model=model,
        hw=hw,
        engine="analytic",
        phase=phase,
        num_chips=chips,
        batch_size=batch,
        input_len=length,
        output_len=8,
    )
    answer = ask(asked)
    facts = answer.facts
    if answer.status == "oom":
        assert answer.latency_s is None
        assert "too much" in answer.error
        return
    assert answer.status == "ok", answer.error
    parts = facts.compute_s + facts.memory_s + facts.communication_s + facts.overhead_s - facts.overlapped_s
    assert answer.latency_s == pytest.approx(parts)
    assert 0 <= facts.overlapped_s <= facts.compute_s + facts.memory_s + facts.communication_s
    assert facts.peak_hbm_bytes == pytest.approx(facts.weights_bytes + facts.kv_cache_bytes + facts.activations_bytes)
    assert facts.peak_hbm_bytes <= asked.chip.hbm_bytes
    # No way to run is faster than its FLOPs at peak.
    forced = 2 * asked.model.matmul_params * batch
    forced *= length * (phase != "decode") + asked.decode_steps
    assert answer.latency_s > forced / chips / asked.chip.peak(asked.act_dtype)
    if phase == "generate":
        assert answer.latency_s == pytest.approx(answer.ttft_s + asked.decode_steps * answer.step_time_s)


def test_answers_keep_the_order_of_the_questions(make_point):
    points = [
        make_point(),
        make_point(model="gpt-20b", hw="a100-80gb", num_chips=8, input_len=60),
        make_point(model="tiny", hw="cpu", num_chips=8, batch_size=8),
        make_point(batch_size=128),
    ]
    together = ENGINE.estimate(points)
    assert [answer.status for answer in together] == ["ok", "ok", "unsupported", "ok"]
    for point, answer in zip(points, together, strict=True):
        assert ask(point).latency_s == pytest.approx(answer.latency_s)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("batch", [64, 512])
def test_auto_is_the_fastest_layout_that_fits(make_point, phase, batch):
    point = make_point(phase=phase, batch_size=batch, input_len=1024)
    explicit = [
        ask(replace(point, ffn_layout=layout, attn_sharding=sharding))
        for layout in LAYOUTS
        for sharding in ("heads", "batch")
    ]
    fastest = min(answer.latency_s for answer in explicit if answer.status == "ok")
    answer = ask(point)
    assert answer.latency_s == pytest.approx(fastest)
    chosen = replace(point, **{key: answer.facts.resolved[key] for key in ("ffn_layout", "attn_sharding")})
    assert ask(chosen).latency_s == pytest.approx(fastest)


@pytest.mark.parametrize("collectives", ["plain", "throughput"])
@pytest.mark.parametrize(
    ("keys", "layout", "sharding"),
    [
        ({"phase": "prefill", "batch_size": 1, "input_len": 2048, "weight_dtype": "int8"}, "ws_2d", "heads"),
        ({"phase": "decode", "batch_size": 64, "weight_dtype": "int8"}, "ws_2d", "batch"),
        ({"phase": "prefill", "batch_size": 512, "input_len": 2048}, "wg_xyz", "batch"),
        ({"phase": "decode", "batch_size": 512}, "ws_2d", "batch"),
    ],
)
def test_it_picks_what_the_paper_ran_in_table_2(make_point, keys, layout, sharding, collectives):
    answer = ask(make_point(collectives=collectives, **keys))
    assert answer.status == "ok"
    assert (answer.facts.resolved["ffn_layout"], answer.facts.resolved["attn_sharding"]) == (layout, sharding)


def test_generate_is_prefill_and_then_decode_on_tpu(make_point):
    keys = {"ffn_layout": "ws_2d", "attn_sharding": "heads", "input_len": 60, "output_len": 20}
    prefill, decode, both = (ask(make_point(phase=phase, **keys)) for phase in ("prefill", "decode", "generate"))
    assert both.latency_s == pytest.approx(prefill.latency_s + decode.latency_s)
    assert both.ttft_s == pytest.approx(prefill.latency_s)


@pytest.mark.parametrize(("model", "hw"), [("gpt-20b", "a100-80gb"), ("palm-62b", "tpu-v4")])
def test_one_token_that_comes_from_the_prefill_costs_the_prefill(make_point, model, hw):
    keys = {"model": model, "hw": hw, "num_chips": 8, "input_len": 60, "weight_dtype": "bfloat16"}
    one = ask(make_point(phase="generate", output_len=1, first_token="prefill", **keys))
    prefill = ask(make_point(phase="prefill", **keys))
    assert one.latency_s == pytest.approx(prefill.latency_s)
    assert one.step_time_s is None


def test_each_phase_of_a_generate_point_takes_its_own_layout(make_point):
    answer = ask(make_point(phase="generate", batch_size=512, collectives="throughput"))
    assert answer.status == "ok"
    assert answer.facts.details["prefill_ffn_layout"].startswith("wg_")
    assert answer.facts.resolved["ffn_layout"] == "ws_2d"


@settings(max_examples=20, deadline=None)
@example(batch=64, longer=1, layout="wg_xyz")
@given(batch=st.sampled_from([64, 128, 256]), longer=st.integers(1, 1000), layout=st.sampled_from(LAYOUTS))
def test_more_work_never_takes_less_time(batch, longer, layout):
    def seconds(batch_size: int, input_len: int, model: Model) -> float:
        asked = build_point(
            model=model,
            hw="tpu-v4",
            engine="analytic",
            phase="prefill",
            num_chips=64,
            batch_size=batch_size,
            input_len=input_len,
            output_len=0,
            ffn_layout=layout,
            # A loop starts to pay at some size and hides more from there on, so looped times may dip a little.
            collectives="plain",
        )
        return ask(asked).latency_s or float("inf")

    model = load_model("palm-62b")
    least = seconds(batch, 100, model)
    assert seconds(2 * batch, 100, model) > least
    assert seconds(batch, 100 + longer, model) > least
    assert seconds(batch, 100, replace(model, num_layers=model.num_layers + 1)) > least


@pytest.mark.parametrize(
    "keys",
    [{"hbm_bytes_per_s": 2.4e12}, {"link_bytes_per_s": 90e9}, {"peak_flops_per_s": {"bfloat16": 550e12}}],
)
def test_a_faster_chip_is_faster(make_point, keys):
    point = make_point(ffn_layout="ws_2d", attn_sharding="batch")
    faster = replace(point, chip=replace(point.chip, **keys))
    assert ask(faster).latency_s < ask(point).latency_s


def test_looped_collectives_hide_part_of_the_transfer(make_point):
    keys = {"phase": "prefill", "ffn_layout": "ws_2d", "attn_sharding": "heads", "batch_size": 4}
    point = make_point(collectives="plain", **keys)
    plain, looped = ask(point), ask(replace(point, collectives="throughput"))
    saved = plain.latency_s - looped.latency_s
    assert 0 < saved < plain.facts.communication_s
    assert looped.facts.overlapped_s - plain.facts.overlapped_s == pytest.approx(saved)
    assert looped.facts.communication_s == plain.facts.communication_s


def test_one_way_uses_half_the_links_of_a_ring(make_point):
    point = make_point(phase="prefill", ffn_layout="ws_2d", attn_sharding="heads", batch_size=4, collectives="oneway")
    oneway, throughput, latency = (
        ask(replace(point, collectives=name)) for name in ("oneway", "throughput", "latency")
    )
    assert throughput.facts.communication_s < oneway.facts.communication_s < 2 * throughput.facts.communication_s
    assert latency.latency_s == throughput.latency_s


def test_the_latency_variant_holds_twice_the_buffer(make_point):
    point = make_point(phase="prefill", ffn_layout="wg_xyz", attn_sharding="batch", input_len=512, batch_size=64)
    held = [ask(replace(point, collectives=name)).facts.activations_bytes for name in ("throughput", "latency")]
    plain = ask(replace(point, collectives="plain")).facts.activations_bytes
    assert held[0] < held[1] < plain


def test_a_compiler_that_partitions_hides_nothing(make_point):
    keys = {"phase": "prefill", "ffn_layout": "ws_2d", "attn_sharding": "heads", "batch_size": 4}
    compiled = ask(make_point(partitioner="gspmd", **keys))
    assert compiled.latency_s > ask(make_point(collectives="throughput", **keys)).latency_s


def test_int8_weights_take_half_the_room_and_less_time(make_point):
    wide, narrow = ask(make_point()), ask(make_point(weight_dtype="int8"))
    assert narrow.facts.weights_bytes == pytest.approx(wide.facts.weights_bytes / 2)
    assert narrow.latency_s < wide.latency_s


def test_a_gpu_holds_both_tables_whole(make_point):
    # gpt-20b over 4 ranks: a quarter of 44·12·6144² weights, and the 51200·6144 table for input and output, float16.
    facts = ask(make_point(model="gpt-20b", hw="a100-80gb", num_chips=4, weight_dtype="float16", input_len=60)).facts
    assert facts.weights_bytes == 2 * (44 * 12 * 6144**2 / 4 + 2 * 51200 * 6144)


def test_out_of_memory_says_by_how_much_and_what_fits(make_point):
    point = make_point(model="gpt-20b", hw="a100-80gb", num_chips=1, input_len=200, output_len=200, batch_size=256)
    answer = ask(point)
    assert answer.status == "oom"
    assert answer.latency_s is None
    fits = int(answer.error.split("a batch of about ")[1].split()[0])
    assert ask(replace(point, batch_size=fits)).status == "ok"
    assert ask(replace(point, batch_size=fits + 8)).status == "oom"


def test_a_cache_of_one_sequence_that_is_too_large_is_not_blamed_on_the_weights(make_point):
    answer = ask(make_point(model="llama-3-8b", hw="h100-80gb", num_chips=1, batch_size=64, input_len=10**9))
    assert answer.status == "oom"
    assert "beside the weights not one sequence fits" in answer.error


def test_weights_that_fit_nowhere_ask_for_chips(make_point):
    answer = ask(make_point(num_chips=4, batch_size=1))
    assert answer.status == "oom"
    assert "weights alone" in answer.error


def test_gathered_weights_fit_only_in_a_loop(make_point):
    # Pope et al. 2022, section 3.5: without looping some weight-gathered layouts do not fit.
    point = make_point(phase="prefill", batch_size=512, input_len=2304, ffn_layout="wg_xyz", model="palm-540b")
    point = replace(point, model=replace(point.model, max_positions=4096))
    assert ask(replace(point, collectives="plain")).status == "oom"
    assert ask(replace(point, collectives="throughput")).status == "ok"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"model": "tiny", "hw": "cpu", "num_chips": 8}, "no datasheet"),
        ({"hw": "a100-80gb", "ffn_layout": "ws_2d"}, "not modelled on GPU"),
        ({"hw": "a100-80gb", "attn_sharding": "batch"}, "not modelled on GPU"),
        ({"act_dtype": "float32"}, "no peak for float32"),
        ({"num_chips": 7}, "is not a slice"),
        ({"hw": "a100-80gb", "num_chips": 48, "tensor_parallel": 12}, "must be a multiple of the 8 GPUs"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_reason(make_point, keys, words):
    answer = ask(make_point(**keys))
    assert answer.status == "unsupported"
    assert words in answer.error


def test_other_chips_take_the_constants_of_their_kind():
    from engines.analytic.constants import calibrated_name, of

    assert calibrated_name(load_chip("tpu-v5p")) == "tpu"
    assert calibrated_name(load_chip("b200")) == "gpu"
    assert of(load_chip("b200"), shipped()) == of(load_chip("l40s"), shipped()) != of(load_chip("h200"), shipped())

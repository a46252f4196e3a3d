"""Experts, latent vectors, windows and positions in closed form: by hand, and the laws that any of them obeys."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bench.sweep.catalog import load_model
from engines.analytic import memory, torus_attention, tpu_torus
from engines.analytic.attention import absorbs, seen_in_decode
from engines.analytic.engine import AnalyticEngine
from engines.analytic.expert_load import busiest_hit, busiest_rows, expected_maximum, normal_maximum
from engines.analytic.gpu_ranks import Ranks, cached_elements, reread
from engines.analytic.grid import Grid, grid_of
from engines.analytic.predict import predict
from engines.core.errors import InvalidRequest
from engines.core.layer_kind import seen_pairs

ENGINE = AnalyticEngine()
ONE = np.ones(1)


def answer(make_point, **keys):
    return ENGINE.estimate([make_point(**keys)])[0]


@pytest.fixture
def deepseek(make_point):
    def asked(**keys):
        given = {"model": "deepseek-v3", "hw": "tpu-v5p", "batch_size": 64, "input_len": 1023, "output_len": 1}
        return make_point(**{**given, **keys})

    return asked


def test_a_token_of_deepseek_v3_caches_70272_bytes(deepseek):
    # arXiv 2412.19437: a latent vector of 512 and a key of 64 that all heads share, in 61 layers, of 2 bytes.
    found = ENGINE.estimate([deepseek(attn_sharding="replicated")])[0]
    assert found.facts.kv_cache_bytes == 61 * (512 + 64) * 2 * 64 * 1024 == 70_272 * 64 * 1024
    over_batch = ENGINE.estimate([deepseek(attn_sharding="batch")])[0]
    assert over_batch.facts.kv_cache_bytes == 70_272 * 1024
    over_positions = ENGINE.estimate([deepseek(attn_sharding="sequence")])[0]
    assert over_positions.facts.kv_cache_bytes == 70_272 * 1024


def test_latent_vectors_of_gpus_are_copied_unless_attention_is_data_parallel(deepseek):
    keys = {"hw": "h200", "num_chips": 16, "weight_dtype": "float8_e4m3", "collectives": "auto"}
    caches = {
        groups: ENGINE.estimate([deepseek(**keys, data_parallel=groups)])[0].facts.kv_cache_bytes
        for groups in (1, 4, 16)
    }
    assert caches == {groups: 70_272 * 1024 * 64 / groups for groups in (1, 4, 16)}


def test_queries_go_to_the_latent_space_in_a_decode_step_and_not_in_a_prompt(deepseek):
    grid = grid_of([deepseek()])
    assert absorbs(grid, ONE, np.full(1, 1024.0))[0]
    assert not absorbs(grid, np.full(1, 1024.0), np.full(1, 1024.0))[0]
    # A pair costs 2·512 + 64 against 192 + 128 products; a key made anew 512·(128 + 128).
    at = 512 * 256 / (2 * 512 + 64 - 192 - 128 + 512 * 256 / 4096)
    few, many = np.floor(at), np.ceil(at) + 1
    assert absorbs(grid, np.full(1, few), np.full(1, 4096.0))[0]
    assert not absorbs(grid, np.full(1, many), np.full(1, 4096.0))[0]
    answers = [ENGINE.estimate([deepseek(phase="generate", output_len=8, num_chips=64)])[0]]
    assert answers[0].facts.resolved["latent_attention"] == "absorbed"
    assert answers[0].facts.details["prefill_latent_attention"] == "expanded"


def test_making_keys_anew_in_every_step_costs_what_it_multiplies(deepseek):
    # 61 layers of 64 sequences make 1023 of 1024 keys and values of 128 heads anew: 2·512·(128 + 128) FLOPs for each.
    points = [deepseek(latent_attention=form, attn_sharding="replicated") for form in ("expanded", "absorbed")]
    expanded, absorbed = (grid_of([each]) for each in points)
    shards = torus_attention.attention_shards(expanded, "ws_1d", "heads")
    made = torus_attention.made_again(expanded, shards, ONE, np.full(1, 1024.0), absorbs(expanded, ONE, ONE))
    assert made[0] == 64 * 1023 * 512 * 256 * 128 / 64
    assert np.all(torus_attention.made_again(absorbed, shards, ONE, ONE * 1024, absorbs(absorbed, ONE, ONE)) == 0)


@settings(max_examples=30)
@given(tokens=st.integers(1, 4000), shards=st.sampled_from([1, 2, 4, 16, 64]), skew=st.sampled_from([0.0, 0.5, 1.0]))
def test_hit_experts_are_between_the_mean_and_all(tokens, shards, skew):
    grid = of_experts(skew)
    hit, rows = (
        busiest_hit(grid, np.full(1, float(tokens)), ONE * shards)[0],
        busiest_rows(grid, np.full(1, float(tokens)), ONE * shards)[0],
    )
    few = 8 if tokens == 1 else min(256.0, tokens * 8.0)
    mean = sum(1 - (1 - share) ** tokens for share in choices(skew)) / shards
    assert mean - 1e-6 <= hit <= min(256 / shards, few) + 1e-6
    assert tokens * 8 / shards - 1e-6 <= rows <= tokens * min(8, 256 / shards) + 1e-6
    more = busiest_rows(grid, np.full(1, tokens + 1.0), ONE * shards)[0]
    assert more >= rows


def choices(skew: float) -> list[float]:
    from engines.core.routing import choice_probabilities

    return list(choice_probabilities(256, 8, skew))


def of_experts(skew: float = 0.0) -> Grid:
    from builders.points import point

    given = {
        "engine": "analytic",
        "phase": "decode",
        "num_chips": 64,
        "batch_size": 64,
        "input_len": 1,
        "output_len": 1,
    }
    return grid_of([point(model="deepseek-v3", hw="tpu-v5p", routing_skew=skew, **given)])


def test_one_token_hits_its_own_experts_and_many_hit_all():
    grid = of_experts()
    assert busiest_hit(grid, ONE, ONE)[0] == pytest.approx(8)
    assert busiest_hit(grid, ONE * 1e5, ONE)[0] == pytest.approx(256)
    assert busiest_hit(grid, ONE * 1e5, ONE * 64)[0] == pytest.approx(4)
    # 64 tokens miss an expert with the chance (31/32)^64.
    assert busiest_hit(grid, ONE * 64, ONE)[0] == pytest.approx(256 * (1 - (31 / 32) ** 64))


@pytest.mark.parametrize(("tokens", "shards"), [(64, 64), (512, 64), (4096, 64), (256, 16), (64, 8), (16, 64)])
def test_the_busiest_chip_is_as_busy_as_routing_at_random_makes_it(tokens, shards):
    random = np.random.default_rng(tokens)
    drawn = []
    for _ in range(60):
        chosen = np.argpartition(random.random((tokens, 256)), 8, axis=1)[:, :8]
        drawn.append(np.bincount(chosen.ravel() // (256 // shards), minlength=shards).max())
    stated = busiest_rows(of_experts(), ONE * tokens, ONE * shards)[0]
    assert stated == pytest.approx(np.mean(drawn), rel=0.12)


def test_the_expected_maximum_is_that_of_normal_variables_and_of_urns():
    # The means of the largest of 2, 8 and 64 normal variables are 0.564, 1.424 and 2.374.
    assert normal_maximum(np.asarray([1.0, 2, 8, 64])) == pytest.approx([0, 0.564, 1.424, 2.374], abs=0.06)
    many = expected_maximum(ONE * 1e6, ONE * 1e6, ONE * 64, ONE * np.inf)[0]
    assert (many - 1e6) / 1e3 == pytest.approx(2.374, rel=0.03)
    random = np.random.default_rng(0)
    for mean in (0.2, 1.0, 4.0, 30.0):
        drawn = random.poisson(mean, (4000, 64)).max(axis=1).mean()
        assert expected_maximum(ONE * mean, ONE * mean, ONE * 64, ONE * np.inf)[0] == pytest.approx(drawn, rel=0.15)
    assert expected_maximum(ONE * 5, ONE * 5, ONE, ONE * np.inf)[0] == 5
    assert expected_maximum(ONE * 5, ONE * 5, ONE * 64, ONE * 6)[0] == 6


@pytest.mark.parametrize("layout", ["ws_1d", "ws_2d", "wg_x", "wg_xyz"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_one_expert_that_every_token_takes_is_a_dense_layer(make_point, layout, phase):
    # Only the router is more: its weights, and 2·E FLOPs a token.
    dense = make_point(model="llama-3-70b", phase=phase, input_len=256, hw="tpu-v5p", ffn_layout=layout)
    one = replace(dense.model, num_experts=1, experts_per_token=1)
    sparse = replace(dense, model=one, expert_axes="none", expert_dispatch="gather")
    grids = [grid_of([each]) for each in (dense, sparse)]
    grids[1] = replace(grids[1], grouped_rows=np.zeros(1), routing_s=np.zeros(1))
    grids = [replace(each, vector_passes=np.zeros(1), prefetch=np.zeros(1)) for each in grids]
    length = grids[0].input_len if phase == "prefill" else ONE
    costs = [tpu_torus.forward(grid, layout, "heads", length, grid.input_len) for grid in grids]
    for name in ("compute_s", "memory_s", "communication_s", "overhead_s"):
        one, other = (getattr(cost, name)[0] for cost in costs)
        assert other == pytest.approx(one, rel=2e-3), name
    held = [memory.on_torus(grid, layout, "heads", length).weights_bytes[0] for grid in grids]
    assert held[1] == pytest.approx(held[0], rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    model=st.sampled_from(
        ["deepseek-v3", "qwen3-235b-a22b", "gpt-oss-120b", "mixtral-8x7b", "gemma-3-27b", "mistral-7b-v0.1"]
    ),
    where=st.sampled_from([("tpu-v5p", 64), ("tpu-v5e", 256), ("h200", 16), ("b200", 8)]),
    phase=st.sampled_from(["prefill", "decode"]),
    batch=st.sampled_from([1, 16, 64]),
    length=st.integers(1, 100_000),
)
def test_no_point_is_faster_than_its_bytes_and_flops_and_longer_contexts_are_slower(model, where, phase, batch, length):
    from builders.points import point

    from bench.rows.min_hbm_bytes import min_hbm_bytes

    hw, chips = where
    given = {"engine": "analytic", "hw": hw, "num_chips": chips, "phase": phase, "batch_size": batch, "output_len": 4}
    given |= {"weight_dtype": "int8"}
    asked = [point(model=model, **given, input_len=each) for each in (length, length + 1000)]
    short, long = ENGINE.estimate(asked)
    assume(short.status == long.status == "ok")
    bandwidth, peak = asked[0].chip.hbm_bytes_per_s, asked[0].chip.peak("bfloat16")
    # The embedding is read whole by the closed forms, as by the bound; the busiest chip has no less than the mean.
    assert short.latency_s > 0.98 * min_hbm_bytes(asked[0]) / chips / bandwidth
    tokens = batch * (length if phase == "prefill" else 4)
    head = load_model(model).head_params * (tokens - batch * (1 if phase == "prefill" else 4)) * 2
    assert short.latency_s > (tokens * asked[0].model.matmul_flops_per_token - head) / chips / peak
    assert long.latency_s > 0.999 * short.latency_s
    assert short.facts.peak_hbm_bytes <= asked[0].chip.hbm_bytes


@settings(max_examples=50)
@given(
    window=st.integers(1, 300),
    kind=st.sampled_from(["sliding", "chunked"]),
    length=st.integers(1, 500),
    steps=st.integers(1, 50),
)
def test_a_window_is_seen_as_the_pairs_of_each_step_say(window, kind, length, steps):
    from builders.points import point

    model = replace(load_model("mistral-7b"), attention_window=window, window_kind=kind, global_every=4)
    keys = {"engine": "analytic", "phase": "decode", "num_chips": 1, "batch_size": 1}
    asked = point(model="mistral-7b", hw="tpu-v5p", input_len=length, output_len=steps, **keys)
    mean = seen_in_decode(grid_of([replace(asked, model=model)]))[0]
    near = seen_pairs(length, length + steps, window, kind) / steps
    whole = length + (steps + 1) / 2
    assert mean == pytest.approx((24 * near + 8 * whole) / 32)


def test_a_layer_with_a_window_keeps_no_more_than_it(make_point):
    # Gemma 3 27B: 10 of 62 layers see 8192 + 1 tokens, 52 of them 1024, of 2·16·128 numbers of 2 bytes on 8 chips.
    keys = {"model": "gemma-3-27b", "hw": "tpu-v5p", "num_chips": 8, "batch_size": 1, "output_len": 1}
    held = answer(make_point, **keys, input_len=8192, attn_sharding="heads").facts.kv_cache_bytes
    assert held == pytest.approx((10 * 8193 + 52 * 1024) * 2 * 16 * 128 * 2 / 8)


def test_positions_over_chips_hold_and_read_a_part_of_the_context(make_point):
    keys = {"model": "llama-3-70b", "hw": "tpu-v5p", "batch_size": 1, "input_len": 2**20 - 1, "output_len": 1}
    heads, sequence = (answer(make_point, **keys, attn_sharding=each) for each in ("heads", "sequence"))
    # 64 chips share 8 key/value heads by 4 along an axis, and the positions by the other 16.
    assert sequence.facts.kv_cache_bytes == 2 * 80 * 8 * 128 * 2 * 2**20 / 64
    assert heads.facts.kv_cache_bytes == 2 * 80 * 1 * 128 * 2 * 2**20
    assert sequence.latency_s < heads.latency_s


def test_a_skewed_router_reads_fewer_experts_and_loads_one_chip_more(make_point):
    keys = {"model": "qwen3-235b-a22b", "hw": "tpu-v5p", "batch_size": 16, "expert_axes": "none"}
    even, skewed = (answer(make_point, **keys, routing_skew=skew) for skew in (0.0, 1.2))
    assert skewed.facts.memory_s < even.facts.memory_s
    prompt = {"phase": "prefill", "input_len": 2048, "output_len": 0} | keys | {"expert_axes": "xyz"}
    even, skewed = (answer(make_point, **prompt, routing_skew=skew) for skew in (0.0, 1.2))
    assert skewed.facts.compute_s > 1.2 * even.facts.compute_s


def test_gpus_read_a_latent_vector_for_64_query_heads_at_once(deepseek):
    grid = grid_of([deepseek(hw="h200", num_chips=16, weight_dtype="float8_e4m3", collectives="auto")])
    whole, eighth = (Ranks(data=ONE * groups, experts=ONE) for groups in (16, 2))
    assert reread(grid, whole)[0] == pytest.approx(1 + grid.kv_reread[0])
    assert reread(grid, eighth)[0] == 1
    assert cached_elements(grid, whole, ONE)[0] == 576


def test_what_cannot_be_split_so_is_refused_with_the_key(make_point):
    def error(**keys):
        found = answer(make_point, **keys)
        assert found.status == "unsupported"
        return found.error

    assert error(model="gpt-oss-20b", hw="tpu-v5p", num_chips=64, expert_axes="xyz").startswith(
        "expert_axes=xyz: num_e"
    )
    assert "attn_sharding=sequence" in error(model="llama-3-70b", attn_sharding="sequence", ffn_layout="wg_x")
    gpus = {"model": "mixtral-8x7b", "hw": "h100-80gb", "num_chips": 8, "collectives": "auto"}
    assert error(**gpus, attn_sharding="sequence").startswith("ffn_layout=auto with attn_sharding=sequence is not")
    assert "data_parallel=8: has no sequence" in error(**gpus, data_parallel=8, batch_size=4)
    with pytest.raises(InvalidRequest, match="expert_axes"):
        make_point(model="llama-3-70b", expert_axes="x").check()


def test_sparse_and_dense_points_of_one_call_answer_as_each_alone(make_point):
    points = [
        make_point(model=model, hw="tpu-v5p", batch_size=32, weight_dtype="int8")
        for model in ("palm-62b", "qwen3-30b-a3b", "deepseek-v3", "gemma-3-12b")
    ]
    together = predict(grid_of(points)).decode.cost.latency_s
    alone = [predict(grid_of([each])).decode.cost.latency_s[0] for each in points]
    assert together == pytest.approx(alone)


def test_the_program_of_a_sparse_model_has_its_constants(make_point, monkeypatch):
    dense, sparse = make_point(), make_point(model="mixtral-8x7b")
    before = ENGINE.program_id(dense), ENGINE.program_id(sparse)
    monkeypatch.setattr("engines.analytic.engine.routing_constants", lambda kind: 1)
    assert ENGINE.program_id(dense) == before[0]
    assert ENGINE.program_id(sparse) != before[1]

"""Counts from the architecture, against the published sizes and by hand."""

import dataclasses
import math
from dataclasses import replace
from functools import partial

import pytest
from builders.points import point as build_point
from hypothesis import given
from hypothesis import strategies as st

from bench.sweep.catalog import load_customised, load_model, model_from, names
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.extension import EXTENSION, check_extensions
from engines.core.layer_kind import seen_pairs
from engines.core.model import Model
from engines.core.point import Point
from engines.weights.random import tensors

tiny_point = partial(
    build_point, "tiny", "cpu", engine="jax", num_chips=1, phase="decode", batch_size=1, input_len=8, output_len=4
)


@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [
        ("palm-8b", 8.63e9, 0.005),
        ("palm-62b", 62.5e9, 0.005),
        ("palm-540b", 540.35e9, 0.005),
        ("mt-nlg-530b", 530e9, 0.01),
    ],
)
def test_parameters_match_the_published_size(name, published, tolerance):
    assert load_model(name).params == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize("name", names("model"))
def test_every_model_states_its_own_size(name):
    model = load_model(name)
    assert model.name == name
    assert model.source
    # gpt-* are named by rounded sizes, which are up to 2% off, and the paper's are rounded.
    rounded = name.startswith(("gpt-1", "gpt-2", "gpt-3", "gpt-6", "gpt-8", "mt-nlg", "palm"))
    assert model.params == pytest.approx(model.published_params, rel=0.02 if rounded else 0.001)


@pytest.mark.parametrize("name", [each for each in names("model") if load_model(each).num_experts])
def test_a_token_meets_as_many_parameters_as_the_authors_state(name):
    # Authors round, and count the embedding of the input or do not.
    model = load_model(name)
    looked_up = 0 if model.tied_embedding else model.vocab_size * model.d_model
    assert 0.97 * (model.active_params - looked_up) < model.mfu_params < 1.01 * model.active_params


def test_gpt_oss_counted_by_hand():
    # arXiv 2508.10925, Table 1: 5.13B of 116.83B parameters for a token, with the output matrix and not the embedding.
    model = load_model("gpt-oss-120b")
    assert model.active_params - 201088 * 2880 == pytest.approx(5.13e9, rel=0.001)
    assert [(len(each.kinds), each.repeats) for each in model.segments] == [(2, 18)]
    assert [kind.window for kind in model.layer_kinds[:2]] == [128, None]


def test_tiny_is_under_ten_million():
    assert load_model("tiny").params < 10e6


def test_a_layer_counted_by_hand():
    model = load_model("tiny")
    # q and o: 256·(8·32) each; k and v: 256·32 each; three feed-forward matrices of 256·1024; one norm scale of 256.
    matrices = 2 * 256 * 256 + 2 * 256 * 32 + 3 * 256 * 1024
    assert [model.layer_matmul_params(kind) for kind in model.layer_kinds] == [matrices] * 4
    assert model.params == 4 * (matrices + 256) + 1024 * 256 + 256
    assert model.matmul_flops_per_token == 2 * (4 * matrices + 1024 * 256)
    assert model.kv_elements_per_token() == 2 * 4 * 1 * 32


def test_biases_and_positions_counted_by_hand():
    model = load_model("tiny-gpt")
    biases = (8 + 8 + 8) * 32 + 256 + 1024 + 256
    assert model.layers_params == model.matmul_params + model.num_layers * (biases + 2 * 2 * 256)
    assert model.embedding_params == 1024 * 256 + 2048 * 256


def test_multihead_variant_keeps_the_size_of_multiquery():
    assert load_model("palm-540b-multihead").params == pytest.approx(load_model("palm-540b").params, rel=0.01)


def test_attention_flops_of_one_query_and_of_a_prompt():
    model = load_model("tiny")
    per_pair = 4 * 4 * 8 * 32
    assert model.attention_flops(query_len=1, context_len=10) == per_pair * 10
    assert model.attention_flops(query_len=4, context_len=4) == per_pair * (1 + 2 + 3 + 4)


@given(cut=st.integers(0, 50), length=st.integers(1, 50))
def test_a_prompt_in_two_chunks_attends_as_often_as_whole(cut, length):
    model = load_model("tiny")
    total = cut + length
    parts = (model.attention_flops(cut, cut) if cut else 0) + model.attention_flops(length, total)
    assert parts == model.attention_flops(total, total)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_layers": 0}, "model.num_layers"),
        ({"num_layers": "x"}, "model.num_layers"),
        ({"d_model": 2.5}, "model.d_model"),
        ({"num_heads": True}, "model.num_heads"),
        ({"tied_embedding": "yes"}, "model.tied_embedding"),
        ({"num_kv_heads": 3}, "model.num_kv_heads"),
        ({"activation": "tanh"}, "model.activation"),
        ({"block": "serial"}, "model.norms_per_layer"),
    ],
)
def test_an_impossible_architecture_is_refused(change, key):
    with pytest.raises(InvalidRequest) as refused:
        replace(load_model("tiny"), **change)
    assert refused.value.key == key


def test_rotary_frequencies_by_hand():
    # 100^(−2i/8): each pair turns 1/√10 as fast as the one before.
    model = replace(load_model("tiny"), head_dim=8, rotary_base=100.0)
    fast = [1, 10**-0.5, 0.1, 10**-1.5]
    assert model.rotary_frequencies == pytest.approx(fast)
    assert replace(model, rotary_dim=4).rotary_frequencies == pytest.approx([1, 0.1])
    assert replace(model, rotary_factor=4.0).rotary_frequencies == pytest.approx([each / 4 for each in fast])
    # Over 40π positions the pairs turn 20, 6.3, 2 and 0.6 times: as they were, half of each between 1 and 3, wholly.
    stretched = replace(model, rotary_factor=4.0, rotary_original_positions=126, rotary_high_factor=3.0)
    assert stretched.rotary_frequencies[:2] == pytest.approx(fast[:2])
    assert stretched.rotary_frequencies[2] == pytest.approx(0.1 * (0.5 + 0.5 / 4), rel=0.01)
    assert stretched.rotary_frequencies[3] == pytest.approx(fast[3] / 4)


@pytest.mark.parametrize("rotary_dim", [3, 34])
def test_rotary_positions_turn_pairs_of_a_head(rotary_dim):
    with pytest.raises(InvalidRequest, match=f"model.rotary_dim={rotary_dim}: must be even and ≤ head_dim=32"):
        replace(load_model("tiny"), rotary_dim=rotary_dim)


def test_a_changed_architecture_counts_its_own_parameters():
    whole, cut = load_model("palm-540b"), model_from(load_customised("model", "palm-540b+num_layers=8"))
    assert whole.mfu_params == 540e9
    assert cut.mfu_params == cut.published_params == cut.params < 0.1 * whole.params
    stated = model_from(load_customised("model", "palm-540b+num_layers=8+mfu_params=37e9"))
    assert stated.mfu_params == 37e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extended(Model):
    """A model with a key that not every engine reads."""

    further: int | None = dataclasses.field(default=None, metadata={EXTENSION: True})


def extended(**changes) -> Point:
    tiny = load_model("tiny")
    model = Extended(**{each.name: getattr(tiny, each.name) for each in dataclasses.fields(tiny)}, **changes)
    return dataclasses.replace(tiny_point(), model=model)


def test_an_engine_refuses_a_key_that_it_does_not_read():
    with pytest.raises(Unsupported, match=r"^model\.further=4: engine=torch runs model\.further=null alone; use an"):
        check_extensions(extended(further=4), "torch")
    check_extensions(extended(further=4), "torch", read=("further",))
    check_extensions(extended(), "torch")
    by_sequence = dataclasses.replace(extended(), attn_sharding="sequence")
    with pytest.raises(Unsupported, match=r"^attn_sharding=sequence: engine=torch does not run it; use an engine"):
        check_extensions(by_sequence, "torch")


def test_the_output_projection_may_go_without_the_bias_that_q_k_and_v_have():
    tiny = load_model("tiny")
    four = dataclasses.replace(tiny, attn_bias=True)
    three = dataclasses.replace(four, attn_output_bias=False)
    assert four.params - three.params == tiny.num_layers * tiny.d_model
    assert four.params - tiny.params == tiny.num_layers * (
        (tiny.num_heads + 2 * tiny.num_kv_heads) * tiny.head_dim + tiny.d_model
    )
    assert {name for name in tensors(four) if name not in tensors(three)} == {
        f"layers.{number}.o_bias" for number in range(tiny.num_layers)
    }
    with pytest.raises(InvalidRequest, match=r"model.attn_output_bias=false: must be true without attn_bias"):
        dataclasses.replace(tiny, attn_output_bias=False)
    with pytest.raises(Unsupported, match=r"model\.attn_output_bias=False: engine=fastertransformer runs"):
        check_extensions(dataclasses.replace(tiny_point(), model=three), "fastertransformer")


def test_the_released_sizes_of_what_tables_of_today_name():
    sizes = {
        "bloom-176b": 176_247_271_424,
        "mistral-7b": 7_241_732_096,
        "llama-7b": 6_738_415_616,
        "llama-3.1-8b": 8_030_261_248,
        "llama-3.2-1b": 1_235_814_400,
        "qwen2.5-7b": 7_615_616_512,
        "qwen3-8b": 8_190_735_360,
        "gpt-neox-20b": 20_554_567_680,
        "starcoder": 15_517_456_384,
        "mistral-large": 122_610_069_504,
        "gemma-2-9b": 9_241_705_984,
        "gemma-2-27b": 27_227_128_320,
        "phi-4": 14_659_507_200,
        "mixtral-8x7b": 46_702_792_704,
        "mixtral-8x22b": 140_620_634_112,
        "qwen3-30b-a3b": 30_532_122_624,
        "qwen3-235b-a22b": 235_093_634_560,
        "gpt-oss-20b": 20_914_757_184,
        "gpt-oss-120b": 116_829_156_672,
        "deepseek-v3": 671_026_419_200,
    }
    assert {name: load_model(name).params for name in sizes} == sizes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bloom-176b", r"^model\.position=alibi: engine=jax does not run it; use an engine that reads it$"),
        ("opt-66b", r"^model\.activation=relu: engine=jax does not run it; use an engine that reads it$"),
        ("qwen3-8b", r"^model\.qk_norm=True: engine=jax runs model\.qk_norm=False alone; use an engine that reads"),
        ("bert-6b", r"^model\.encoder=True: engine=jax runs model\.encoder=False alone; use an engine that reads"),
    ],
)
def test_engines_refuse_what_they_do_not_run(name, message):
    point = dataclasses.replace(tiny_point(), model=load_model(name))
    with pytest.raises(Unsupported, match=message):
        check_extensions(point, "jax", read=("attn_output_bias",))


def test_an_encoder_attends_to_all_and_has_no_output_or_cache():
    encoder = dataclasses.replace(load_model("tiny-gpt"), encoder=True, position="none")
    assert (
        encoder.params
        == 4 * encoder.layer_params(encoder.layer_kinds[0])
        == sum(math.prod(each.shape) for each in tensors(encoder).values())
    )
    assert encoder.matmul_flops_per_token == 2 * encoder.matmul_params
    assert encoder.kv_elements_per_token() == 0
    assert encoder.attention_flops(query_len=4, context_len=4) == 4 * 4 * 8 * 32 * 4 * 4


def test_norms_of_heads_and_of_the_embedding_are_counted():
    tiny = load_model("tiny")
    assert dataclasses.replace(tiny, qk_norm=True).params - tiny.params == 4 * 2 * 32
    assert dataclasses.replace(tiny, embedding_norm=True).params - tiny.params == 256


@pytest.mark.parametrize("window_kind", ["sliding", "chunked"])
@given(first=st.integers(0, 40), count=st.integers(1, 40), window=st.none() | st.integers(1, 30))
def test_pairs_of_a_query_and_a_key_in_its_window(window_kind, first, count, window):
    def sees(query: int, key: int) -> bool:
        if window is None:
            return key <= query
        near = query - key < window if window_kind == "sliding" else query // window == key // window
        return key <= query and near

    pairs = sum(sees(query, key) for query in range(first, first + count) for key in range(query + 1))
    assert seen_pairs(first, first + count, window, window_kind) == pairs


@given(layers=st.integers(1, 70), dense=st.integers(0, 5), every=st.none() | st.integers(1, 8), experts=st.booleans())
def test_segments_are_the_layers_in_their_order(layers, dense, every, experts):
    tiny = dataclasses.replace(load_model("tiny"), block="serial", norms_per_layer=2, num_layers=layers)
    model = dataclasses.replace(tiny, attention_window=16, global_every=every)
    if experts and dense < layers:
        model = dataclasses.replace(model, num_experts=4, experts_per_token=2, dense_layers=dense or None)
    listed = [kind for each in model.segments for kind in each.kinds * each.repeats]
    assert tuple(listed) == model.layer_kinds
    assert len(model.segments) <= 2 * (2 + (every or 1))


def test_deepseek_v3_counted_by_hand():
    model = load_model("deepseek-v3")
    # arXiv 2412.19437, section 4.2: 671B parameters, of which 37B for a token.
    assert model.params == pytest.approx(671e9, rel=0.001)
    active = model.active_params
    assert active == model.params - 58 * (256 - 8) * 3 * 7168 * 2048
    assert active == pytest.approx(37.6e9, rel=0.005)
    assert model.matmul_flops_per_token == pytest.approx(2 * (active - 129280 * 7168), rel=0.001)
    assert model.kv_elements_per_token() == 61 * (512 + 64)
    assert [(len(each.kinds), each.repeats) for each in model.segments] == [(1, 3), (1, 58)]
    assert model.params == sum(math.prod(each.shape) for each in tensors(model).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts_per_token": 2}, "model.experts_per_token=2: needs experts; set num_experts too"),
        ({"num_experts": 4, "experts_per_token": 5}, "must be a number of the num_experts=4"),
        ({"value_head_dim": 32}, "is a size of latent attention; set kv_latent_dim too"),
        ({"kv_latent_dim": 32}, "must be num_heads=8 with kv_latent_dim"),
        ({"global_every": 2}, "says which layers see beyond a window, and there is none"),
        ({"norm_position": "both"}, "needs a serial block"),
        ({"num_layers": 10**9}, "model.num_layers=1000000000: is larger than 100000"),
        ({"head_dim": 2**31 - 1}, "model.head_dim=2147483647: is larger"),
    ],
)
def test_keys_that_contradict_each_other(changes, message):
    with pytest.raises(InvalidRequest, match=message):
        replace(load_model("tiny"), **changes)

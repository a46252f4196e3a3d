"""Multi-head latent attention: both forms, every sharding of its cache, which is chosen, and DeepSeek's own code."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.plans import mesh_of, plan_of
from compiling import plainly
from hlo_collectives import loop_collectives
from hypothesis import given
from hypothesis import strategies as st
from partitioned_case import errors, relative_error, run

from engines.core.errors import InvalidRequest
from engines.core.layout import FFN_LAYOUTS
from engines.transformer.comm.volume import layer_transfers
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.layers.packing import pack
from engines.transformer.options import PrefillOptions
from engines.transformer.partition.resolve import resolve_layout
from engines.transformer.programs import (
    abstract_arguments,
    load_parameters,
    make_prefill,
    make_ragged_prefill,
)
from engines.transformer.reference import reference_logits
from engines.weights.random import prompt, tensors

LAYOUTS = [name for name in FFN_LAYOUTS if name != "auto"]
DEEPSEEK = MODELS["deepseek"]


@pytest.mark.thorough(every=2)
@pytest.mark.slow
@pytest.mark.parametrize("attn_sharding", ["replicated", "batch"])
@pytest.mark.parametrize(("ffn_layout", "form"), [*zip(LAYOUTS, ["absorbed", "expanded", "auto"] * 2, strict=False)])
def test_every_layout_equals_the_reference(ffn_layout, form, attn_sharding):
    assert max(errors(plan_of("deepseek", (2, 2, 2), ffn_layout, attn_sharding, latent_attention=form))) < 1e-5


@pytest.mark.thorough(every=2)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "shape", "settings"),
    [
        ("deepseek", (1, 1, 1), {"latent_attention": "absorbed"}),
        ("deepseek lite", (2, 2, 2), {"latent_attention": "expanded"}),
        ("deepseek", (2, 2, 2), {"partitioner": "gspmd"}),
        ("deepseek", (2, 2, 2), {"collectives": "throughput"}),
        ("deepseek", (2, 2, 2), {"collectives": "all_reduce", "unrolled": True}),
        ("deepseek", (1, 2, 4), {"prefill": PrefillOptions(attention="blockwise", block=2)}),
        ("deepseek", (2, 2, 2), {"prefill": PrefillOptions(chunk=2), "latent_attention": "expanded"}),
        ("deepseek", (2, 2, 2), {"prefill": PrefillOptions(chunk=2)}),
    ],
)
def test_other_ways_to_run(model, shape, settings):
    ffn_layout = "ws_1d" if shape == (1, 1, 1) else "ws_2d"
    assert max(errors(plan_of(model, shape, ffn_layout, "replicated", **settings))) < 1e-5


@pytest.mark.slow
def test_one_sequence_on_eight_chips():
    assert max(errors(plan_of("deepseek lite", (2, 2, 2), "ws_2d", "replicated", 1))) < 1e-5


@pytest.mark.thorough(every=2)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "formats"),
    [
        ("absorbed", {"kv_dtype": "int8"}),
        ("expanded", {"kv_dtype": "int8"}),
        ("absorbed", {"weight_dtype": "int8"}),
        ("expanded", {"weight_dtype": "int8"}),
        ("absorbed", {"weight_dtype": "int8", "weight_group_size": 2}),
    ],
)
def test_narrow_formats_err_alike_in_both_forms(form, formats):
    model = replace(DEEPSEEK, kv_latent_dim=12, value_head_dim=6)
    found = errors(plan_of(model, (2, 2, 2), "ws_2d", "batch", latent_attention=form, **formats))
    other = errors(plan_of(model, (1, 1, 1), "ws_1d", "heads", **formats))
    assert found == pytest.approx(other, abs=2e-5)
    assert 1e-4 < max(found) < 0.03


@pytest.mark.slow
def test_packed_prompts():
    plan = plan_of("deepseek", (2, 2, 2), "ws_2d", "batch")
    mesh, lengths = mesh_of(plan.mesh_shape), np.array([5, 3, 1, 4, 2, 5, 5, 1], np.int32)
    tokens = prompt(plan.model, 8, 5, 0)
    rows, packing = pack(plan, tokens, lengths)
    last = np.asarray(packing.starts) + lengths - 1
    weights, cache = load_parameters(plan, mesh, 0), make_cache(plan, mesh)
    _, scores, _ = run(make_ragged_prefill(plan, mesh, 5, packing=packing), weights, cache, rows, last)
    for row, length in enumerate(lengths):
        expected = tokens[row : row + 1, :length]
        found = np.asarray(scores)[None, row : row + 1, : plan.model.vocab_size]
        assert relative_error(plan.model, expected, (int(length) - 1,), found) < 1e-5


@given(time=st.integers(1, 4000), limit=st.integers(1, 4000))
def test_auto_multiplies_least(time, limit):
    limit = max(time, limit)
    plan = plan_of(replace(DEEPSEEK, kv_latent_dim=512, head_dim=192, rotary_dim=64, value_head_dim=128))
    pairs, up = time * limit, 512 * (128 + 128)
    absorbed = pairs * (512 + 64 + 512) + time * up
    expanded = pairs * (192 + 128) + limit * up
    assert plan.absorbs(time, limit) == (absorbed < expanded)


def test_a_step_absorbs_and_a_whole_prompt_expands():
    plan = plan_of("deepseek")
    assert plan.absorbs(1, 100)
    assert not plan.absorbs(100, 100)


def test_what_a_chip_caches():
    # Eight chips: replicated, a chip holds all latent vectors; over the batch, those of its sequences.
    def cached(attn_sharding):
        plan = plan_of("deepseek", (2, 2, 2), "ws_2d", attn_sharding)
        return sum(
            each.addressable_shards[0].data.nbytes for each in make_cache(plan, mesh_of(plan.mesh_shape))[0].values()
        )

    whole = 4 * DEEPSEEK.num_layers * 8 * 8 * (11 + 4)  # layers, sequences, positions, latent + rotary, in float32
    assert cached("replicated") == whole
    assert cached("batch") == whole / 8


def test_auto_layouts():
    def chosen(batch_size):
        return resolve_layout(DEEPSEEK, (2, 2, 2), "ws_2d", "auto", batch_size=batch_size, decodes=True)[1]

    assert chosen(8) == "batch"
    assert chosen(1) == "replicated"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"attn_bias": True}, "model.attn_bias=true"),
        ({"qk_norm": True}, "model.qk_norm=true"),
        ({"block": "parallel"}, "model.block=parallel"),
    ],
)
def test_keys_that_do_not_go_with_it(changes, says):
    with pytest.raises(InvalidRequest, match=says):
        replace(DEEPSEEK, **changes)


def test_a_shared_prefix_is_refused():
    with pytest.raises(InvalidRequest, match="shared_prefix=2: does not go with the latent attention"):
        plan_of("deepseek", prefill=PrefillOptions(prefix=2))


@pytest.mark.thorough(every=2)
@pytest.mark.slow
@pytest.mark.usefixtures("plainly_compiled")
@pytest.mark.parametrize("form", ["absorbed", "expanded"])
@pytest.mark.parametrize(
    ("ffn_layout", "attn_sharding"), [("ws_1d", "replicated"), ("ws_2d", "batch"), ("wg_xy", "batch")]
)
def test_the_compiled_layer_sends_what_the_closed_form_says(ffn_layout, attn_sharding, form):
    model = replace(DEEPSEEK, d_model=32, d_ff=64, vocab_size=16)
    plan = plan_of(model, (2, 2, 2), ffn_layout, attn_sharding, latent_attention=form, weight_dtype="int8")
    mesh = mesh_of(plan.mesh_shape)
    program = make_prefill(plan, mesh).lower(*abstract_arguments(plan, mesh, 5)["prefill"])
    text = program.compile(plainly()).as_text()
    wanted = Counter((each.kind, each.axes, each.payload_bytes) for each in layer_transfers(plan, 5))
    assert loop_collectives(text, plan.mesh_shape) == wanted


class _Stored:
    """Tensors by their canonical names, as a source of values."""

    def __init__(self, held):
        self.held = held

    def read(self, tensor, index):
        return np.ascontiguousarray(self.held[tensor.name].reshape(tensor.shape)[tuple(index)], np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("q_latent_dim", [12])
def test_logits_equal_those_of_deepseek_in_transformers(q_latent_dim):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = small_model(
        block="serial", norm="rmsnorm", norms_per_layer=2, num_heads=8, num_kv_heads=8, head_dim=10, rotary_dim=4,
        rotary_interleaved=True, q_latent_dim=q_latent_dim, kv_latent_dim=11, value_head_dim=5, tied_embedding=False,
        norm_epsilon=1e-6,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.DeepseekV3ForCausalLM(
        transformers.DeepseekV3Config(
            vocab_size=model.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=8, num_key_value_heads=8, q_lora_rank=q_latent_dim, kv_lora_rank=11,
            qk_rope_head_dim=4, qk_nope_head_dim=6, v_head_dim=5, first_k_dense_replace=2, n_routed_experts=4,
            n_group=1, topk_group=1, num_experts_per_tok=2, rms_norm_eps=1e-6, max_position_embeddings=64,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, initializer_range=0.2,
        )
    ).eval()  # fmt: skip
    held = _canonical(model, {name: each.detach().numpy() for name, each in theirs.state_dict().items()})
    assert held.keys() == tensors(model).keys()
    tokens = prompt(model, 8, 7, 0)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens.astype(np.int64))).logits.numpy()
    assert np.abs(expected).max() > 0.1
    ours = reference_logits(model, tokens, list(range(7)), _Stored(held)).transpose(1, 0, 2)
    assert np.abs(ours - expected).max() < 1e-4
    for form in ("absorbed", "expanded"):
        plan = plan_of(model, (2, 2, 2), "ws_2d", "batch", latent_attention=form)
        mesh = mesh_of(plan.mesh_shape)
        weights, cache = load_parameters(plan, mesh, _Stored(held)), make_cache(plan, mesh)
        _, scores, _ = run(make_prefill(plan, mesh), weights, cache, tokens)
        assert np.abs(np.asarray(scores)[:, : model.vocab_size] - expected[:, -1]).max() < 1e-4


def _canonical(model, theirs):
    """Transformers' parameters as canonical tensors: a linear layer holds [out, in]."""
    plain, value, heads = model.head_dim - model.rotary_dim, model.value_head_dim, model.num_heads
    held = {
        "embedding": theirs["model.embed_tokens.weight"],
        "final_norm.scale": theirs["model.norm.weight"],
        "lm_head": theirs["lm_head.weight"].T,
    }
    for number in range(model.num_layers):
        own = {name.removeprefix(f"model.layers.{number}."): each for name, each in theirs.items()}
        both = own["self_attn.kv_b_proj.weight"].reshape(heads, plain + value, -1).transpose(2, 0, 1)
        found = {
            "attn_norm.scale": own["input_layernorm.weight"],
            "ffn_norm.scale": own["post_attention_layernorm.weight"],
            "kv_a": own["self_attn.kv_a_proj_with_mqa.weight"].T,
            "kv_a_norm.scale": own["self_attn.kv_a_layernorm.weight"],
            "k_b": both[..., :plain],
            "v_b": both[..., plain:],
            "o": own["self_attn.o_proj.weight"].T,
            "gate": own["mlp.gate_proj.weight"].T,
            "up": own["mlp.up_proj.weight"].T,
            "wo": own["mlp.down_proj.weight"].T,
        }
        if model.q_latent_dim is None:
            found["q"] = own["self_attn.q_proj.weight"].T
        else:
            found |= {"q_a": own["self_attn.q_a_proj.weight"].T, "q_b": own["self_attn.q_b_proj.weight"].T}
            found["q_a_norm.scale"] = own["self_attn.q_a_layernorm.weight"]
        held |= {f"layers.{number}.{name}": each for name, each in found.items()}
    return held

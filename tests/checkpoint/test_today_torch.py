"""The torch engine runs windows, sinks, softcaps, experts and latents, on one rank and on several."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from builders.points import point as build_point
from checkpoint_cases import EVERY, TODAY
from forked_ranks import ForkedRanks
from processes import PATIENCE_S

from engines.core.errors import ShardbenchError, Unsupported
from engines.torch.engine import TorchEngine
from engines.torch.experts import route
from engines.torch.job import Job
from engines.torch.parameters import LayerParameters, ParameterLoader
from engines.torch.rank import Rank
from engines.torch.rank_group import InProcess
from engines.torch.reference import reference_logits
from engines.torch.reference_experts import route as reference_route
from engines.torch.result import Outputs
from engines.torch.shard import Shard
from engines.weights.checkpoint.describe import described_by
from engines.weights.random import prompt

pytestmark = [pytest.mark.usefixtures("small_peaks", "small_torch_peaks"), pytest.mark.slow]

SEED = 3
LATENT = [name for name in TODAY if name.startswith("deepseek")]
ROUTED = [name for name in TODAY if "dense" not in name and any("experts" in key for key in EVERY[name][1])]


def model(name, **changes):
    """The model of a case, without its weights."""
    import transformers

    family, keys = EVERY[name]
    config = getattr(transformers, f"{family}{'Text' * (family == 'Gemma3')}Config")(**keys)
    content = json.loads(config.to_json_string()) | {"architectures": [f"{family}ForCausalLM"]}
    return dataclasses.replace(described_by(content), **changes)


def point(asked, tensor=1, pipeline=1, **changes):
    values = {
        "model": asked,
        "hw": "cpu",
        "engine": "torch",
        "phase": "generate",
        "num_chips": tensor * pipeline,
        "tensor_parallel": tensor,
        "pipeline_parallel": pipeline,
        "batch_size": 4,
        "input_len": 7,  # two windows and a token; with the tokens generated five
        "output_len": 9,
        "weight_dtype": "float32",
    }
    return build_point(**{**values, **changes})


def run(asked, decode="eager"):
    """Prefill and decode once, having checked what the engine checks."""
    job = dataclasses.replace(TorchEngine(seed=SEED).job(asked), decode=decode, threads=1)
    group = InProcess(job) if asked.num_chips == 1 else ForkedRanks(job, PATIENCE_S)
    try:
        group.call("prefill")
        group.call("decode")
        return Outputs.joined(group.call("outputs"))
    finally:
        group.close()


def error(asked, outputs):
    """Largest difference of the logits of prompt and last steps from the reference, fed with the same tokens."""
    tokens = prompt(asked.model, asked.batch_size, asked.input_len, SEED)
    tokens = np.concatenate([tokens, outputs.first[:, None], outputs.generated.T[:, :-1]], axis=1)
    places = [asked.input_len - 1, *range(tokens.shape[1] - len(outputs.kept), tokens.shape[1])]
    wanted = reference_logits(asked.model, torch.from_numpy(tokens).long(), places, SEED).numpy()
    assert np.array_equal(outputs.first, wanted[0].argmax(axis=-1))
    return np.abs(np.concatenate([outputs.first_scores[None], outputs.kept]) - wanted).max()


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("name", TODAY)
def test_one_rank_equals_the_reference_after_windows_of_decoding(name):
    asked = point(model(name))
    assert error(asked, run(asked)) < 1e-4


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("form", ["absorbed", "expanded"])
@pytest.mark.parametrize("name", LATENT)
def test_both_forms_of_latent_attention_are_the_same(name, form):
    asked = point(model(name), latent_attention=form)
    assert error(asked, run(asked)) < 1e-4


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mistral with window", {"window_kind": "chunked"}),
        ("gemma 3", {"window_kind": "chunked", "attention_sinks": True}),
        ("bloom", {"attention_window": 3}),
        ("bloom", {"attn_softcap": 2.0, "attention_sinks": True}),
        ("qwen3", {"norm_position": "after", "attn_scale": 0.5}),
        ("mixtral", {"ffn_bias": True, "activation": "geglu", "router_score": "sigmoid", "shared_expert_d_ff": 16}),
    ],
)
def test_keys_go_together_that_no_family_has_together(name, changes):
    asked = point(model(name, **changes))
    assert error(asked, run(asked)) < 1e-4


@pytest.mark.parametrize("name", ["gemma 3", "gpt-oss", "bloom", "deepseek-v3", "mistral with window"])
@pytest.mark.thorough(every=2)
def test_one_recorded_step_for_all_reads_the_cache_under_a_mask(name, monkeypatch):
    monkeypatch.setattr("engines.torch.rank.compiled", lambda work, *_: work)
    monkeypatch.setattr("engines.torch.rank.MOST_RECORDED", 0)
    changes = {"window_kind": "chunked"} if name == "mistral with window" else {}
    asked = point(model(name, **changes))
    assert error(asked, run(asked, decode="compile")) < 1e-4


def test_a_prompt_in_blocks_is_the_prompt(monkeypatch):
    asked = point(model("gpt-oss"), phase="prefill", input_len=23)
    whole = run(asked).first_scores
    monkeypatch.setattr("engines.torch.attention.BLOCK", 4)
    assert np.abs(run(asked).first_scores - whole).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "degrees"),
    [
        ("gpt-oss", {"tensor": 2, "pipeline": 2, "expert_parallel": 2}),
        ("deepseek-v3", {"tensor": 2, "expert_parallel": 2, "data_parallel": 2}),  # tokens go to their experts
        ("qwen2-moe", {"tensor": 4, "expert_parallel": 2, "data_parallel": 2}),
        ("gemma 3", {"tensor": 2}),
    ],
)
def test_ranks_equal_the_reference(name, degrees):
    asked = point(model(name), **degrees)
    assert error(asked, run(asked)) < 1e-4


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("weight_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", ["gpt-oss", "deepseek-v3", "gemma 2", "bloom"])
def test_all_is_on_the_device_and_no_value_is_on_the_host(monkeypatch, name, weight_dtype):
    monkeypatch.setattr("engines.torch.rank.device_of", lambda point, local_rank: torch.device("meta"))
    rank = Rank(Job(point=point(model(name), weight_dtype=weight_dtype), seed=SEED, decode="eager"), 0, 0)
    rank.decode()
    assert (rank.generated.device.type, rank.kept.device.type) == ("meta", "meta")


@pytest.mark.parametrize("weight_dtype", ["bfloat16", "int8"])
@pytest.mark.thorough(every=2)
def test_narrow_weights_of_experts_and_latents_are_near(weight_dtype):
    for name in ("gpt-oss", "deepseek-v3"):
        program = TorchEngine(seed=SEED).prepare(point(model(name), weight_dtype=weight_dtype))
        checked = program.verify()
        program.close()
        assert 0 < checked.max_relative_error < 0.3, name  # another expert may be chosen


def test_a_program_of_experts_says_how_it_ran():
    engine = TorchEngine(seed=SEED)
    asked = point(model("deepseek-v3"), phase="decode")
    program = engine.prepare(asked)
    facts = program.facts()
    assert program.verify().ok
    program.close()
    assert facts.resolved["expert_parallel"] == 1
    assert facts.resolved["latent_attention"] == "absorbed"
    assert facts.program_id == engine.program_id(asked)
    assert facts.weights_bytes == 4 * asked.model.params
    # Three layers hold 12 + 4 numbers for each of 16 positions of 4 sequences.
    assert facts.kv_cache_bytes == 3 * 16 * 16 * 4 * 4
    other = dataclasses.replace(asked, num_chips=2, tensor_parallel=2, expert_parallel=2)
    assert engine.program_id(other) != engine.program_id(dataclasses.replace(other, expert_parallel=1))


def test_a_window_is_all_that_is_cached():
    program = TorchEngine(seed=SEED).prepare(point(model("gemma 3")))
    # Two layers of 3 positions and one of 16, 2 heads of 8, keys and values.
    assert program.facts().kv_cache_bytes == (2 * 3 + 16) * 2 * 8 * 2 * 4 * 4
    program.close()


@pytest.mark.parametrize(("ranks", "experts", "data"), [(1, 1, 1), (2, 2, 1), (4, 2, 1), (4, 4, 2), (4, 1, 4)])
def test_ranks_hold_every_expert_once(ranks, experts, data):
    asked = model("qwen2-moe", num_experts=8)
    shards = [Shard(asked, ranks, 1, rank, experts, data) for rank in range(ranks)]
    shards[0].check()
    cells = [
        (expert, column)
        for each in shards
        for expert in range(each.own_experts.start, each.own_experts.stop)
        for column in range(each.expert_columns.start, each.expert_columns.stop)
    ]
    assert sorted(cells) == [(expert, column) for expert in range(8) for column in range(asked.expert_d_ff)]
    assert sorted({(each.sequences(8).start, each.sequences(8).stop) for each in shards}) == [
        (8 * group // data, 8 * (group + 1) // data) for group in range(data)
    ]


def test_the_router_of_every_model_that_has_one_is_compared():
    assert [name for name in TODAY if model(name).num_experts is not None] == ROUTED


@pytest.mark.parametrize("name", ROUTED)
def test_the_router_chooses_as_the_reference_does(name):
    asked = model(name)
    made = ParameterLoader(Shard(asked, 1, 1, 0), SEED, torch.device("cpu"), "float32", "float32").load()
    w: LayerParameters = made.layers[-1]
    x = torch.randn(50, asked.d_model, generator=torch.Generator().manual_seed(0))
    chosen, weights = route(asked.experts, w, x)
    theirs = {each: w.vectors[each] for each in ("router_bias", "router_correction") if each in w.vectors}
    wanted, wanted_weights = reference_route(asked.experts, {"router": w.vectors["router"].T, **theirs}, x)
    order, wanted_order = chosen.argsort(dim=1), wanted.argsort(dim=1)
    assert torch.equal(chosen.gather(1, order), wanted.gather(1, wanted_order))
    assert torch.allclose(weights.gather(1, order), wanted_weights.gather(1, wanted_order), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "keys", "says"),
    [
        ("gpt-oss", {"tensor": 2, "expert_capacity": 1.5}, "expert_capacity=1.5: engine=torch runs"),
        ("gpt-oss", {"routing_skew": 1.0}, "routing_skew=1.0: engine=torch runs"),
        ("gpt-oss", {"tensor": 2, "pipeline": 2, "expert_parallel": 4}, "expert_parallel=4: must divide tensor_"),
        ("qwen2-moe", {"tensor": 2, "data_parallel": 2, "batch_size": 3}, "data_parallel=2: must divide batch_size=3"),
        ("qwen2-moe", {"tensor": 4, "expert_parallel": 4}, "expert_parallel=4: does not divide num_experts=6"),
        ("deepseek-v3", {"tensor": 3}, "must divide num_heads=4"),
        ("gpt-oss", {"tensor": 2, "attn_sharding": "sequence"}, "attn_sharding=sequence"),
    ],
)
def test_what_it_does_not_run_is_one_sentence(name, keys, says):
    with pytest.raises(ShardbenchError) as caught:
        TorchEngine().job(point(model(name), **keys))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("decode", ["compile", "graph"])
def test_tokens_that_travel_have_no_static_shapes(decode):
    asked = point(model("deepseek-v3"), tensor=2, expert_parallel=2, data_parallel=2)
    with pytest.raises(Unsupported, match=f"engine.decode={decode}.*experts here take as many tokens as they get"):
        TorchEngine(decode=decode).job(asked)

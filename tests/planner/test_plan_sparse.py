"""The planner's choices for experts, latent attention and long contexts, against every choice asked of the engine."""

from dataclasses import replace
from itertools import product

import pytest
from builders.workloads import workload_of

from bench.cli.commands.plan import main
from bench.planner.search import search
from engines.analytic.engine import AnalyticEngine
from engines.core.layout import EXPERT_AXES


def answers(point, **choices):
    asked = [replace(point, **dict(zip(choices, each, strict=True))) for each in product(*choices.values())]
    return [each for each in AnalyticEngine().estimate(asked) if each.status == "ok"]


@pytest.mark.parametrize("batch", [1, 256])
def test_no_expert_axes_that_can_be_asked_for_are_faster(batch):
    keys = {"phase": "decode", "batch_size": batch, "input_len": 1984, "weight_dtype": "int8", "num_chips": 16}
    plan = search(workload_of(model="qwen3-30b-a3b", hw="tpu-v5e", **keys)).chosen
    choices = plan.choices["decode"]
    asked = replace(plan.point, **choices)
    assert AnalyticEngine().estimate([asked])[0].latency_s == pytest.approx(plan.latency_s)
    every = answers(
        replace(plan.point, attn_sharding="auto"),
        expert_axes=EXPERT_AXES[1:],
        ffn_layout=["ws_1d", "ws_2d"],
        attn_sharding=["batch", "heads", "sequence"],
        expert_dispatch=["gather", "all_to_all"],
    )
    assert len(every) > 8
    assert min(each.latency_s for each in every) >= plan.latency_s * (1 - 1e-9)


def test_no_groups_of_gpus_that_can_be_asked_for_are_faster():
    keys = {"phase": "decode", "batch_size": 256, "input_len": 1984, "weight_dtype": "int8", "num_chips": 16}
    plan = search(workload_of(model="deepseek-v3", hw="h200", **keys)).chosen
    choices = plan.choices["decode"]
    assert choices["latent_attention"] == "absorbed"
    asked = replace(plan.point, **{key: value for key, value in choices.items() if key != "ffn_layout"})
    assert AnalyticEngine().estimate([asked])[0].latency_s == pytest.approx(plan.latency_s)
    every = answers(plan.point, data_parallel=[1, 2, 4, 8, 16], expert_parallel=[1, 16])
    assert len(every) > 4
    assert min(each.latency_s for each in every) >= plan.latency_s * (1 - 1e-9)


def test_runners_up_name_other_experts_and_groups():
    keys = {"phase": "decode", "batch_size": 64, "input_len": 1984, "weight_dtype": "int8"}
    torus = search(workload_of(model="deepseek-v3", hw="tpu-v5p", num_chips=64, **keys), runners=100)
    gpus = search(workload_of(model="deepseek-v3", hw="h200", num_chips=16, **keys), runners=100)
    for found, key in ((torus, "expert_axes"), (gpus, "data_parallel")):
        named = {plan.choices["decode"][key] for plan in [found.chosen, *found.runners_up]}
        assert len(named) > 2
        assert found.chosen.choices["decode"].keys() >= {"latent_attention", "expert_dispatch", key}
        assert all(plan.loss >= 0 for plan in found.runners_up)


def test_a_million_tokens_of_one_sequence_are_split_by_position():
    found = search(
        workload_of(model="llama-3-70b", hw="tpu-v5p", num_chips=64, phase="decode", batch_size=1, input_len=1_000_000)
    )
    assert found.chosen.choices["decode"]["attn_sharding"] == "sequence"
    short = search(
        workload_of(model="llama-3-70b", hw="tpu-v5p", num_chips=64, phase="decode", batch_size=64, input_len=2048)
    )
    assert short.chosen.choices["decode"]["attn_sharding"] == "batch"


def test_a_dense_model_on_more_gpus_than_key_value_heads_may_be_data_parallel():
    keys = {"phase": "decode", "batch_size": 64, "input_len": 30_000, "weight_dtype": "int8", "num_chips": 32}
    found = search(workload_of(model="llama-3-70b", hw="h200", **keys), runners=100)
    plans = [found.chosen, *found.runners_up]
    assert any(plan.choices["decode"].get("data_parallel", 1) > 1 for plan in plans)


def test_the_command_says_what_was_chosen(capsys):
    settings = {"model": "gpt-oss-120b", "hw": ["h100-80gb"], "num_chips": [8], "runners": 3, "print": "table"}
    assert main(None, {**{key.name: key.default for key in _keys()}, **settings}) == 0
    said = "".join(capsys.readouterr().out.split())
    assert "dp1ep" in said or "dp8ep" in said


def _keys():
    from bench.cli.commands.plan import KEYS

    return KEYS

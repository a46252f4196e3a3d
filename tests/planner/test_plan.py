"""The planner's choice, what the others lose, and what it says where nothing fits."""

from dataclasses import replace

import pytest
from builders.workloads import workload_of

from bench.planner.drafts import LENGTHS, drafted
from bench.planner.search import TERMS, search
from bench.planner.shortfall import shortfall
from bench.planner.workload import counts_up_to, ways_of
from bench.sweep.catalog import load_model
from engines.analytic.engine import AnalyticEngine
from engines.core.errors import InvalidRequest, Unsupported

TABLE_2 = [
    ({"phase": "prefill", "batch_size": 1, "weight_dtype": "int8"}, ("ws_2d", "heads")),
    ({"phase": "decode", "batch_size": 64, "input_len": 1984, "weight_dtype": "int8"}, ("ws_2d", "batch")),
    ({"phase": "prefill", "batch_size": 512, "weight_dtype": "bfloat16"}, ("wg_xyz", "batch")),
    ({"phase": "decode", "batch_size": 512, "input_len": 1984, "weight_dtype": "bfloat16"}, ("ws_2d", "batch")),
]


def workload(**keys):
    return workload_of(**{"model": "palm-540b", "num_chips": 64, "batch_size": 64, **keys})


@pytest.mark.parametrize(("keys", "layout"), TABLE_2, ids=str)
def test_it_picks_the_papers_layouts_for_table_2(keys, layout):
    found = search(workload(**keys))
    assert found.chosen.layouts == {keys["phase"]: layout}
    assert found.chosen.point.mesh == (4, 4, 4)


@pytest.mark.parametrize("objective", ["latency", "cost", "throughput"])
def test_the_chosen_plan_is_the_best_of_all(objective):
    asked = workload(model="palm-62b", num_chips=[8, 16, 32], batch_size=[8, 64], objective=objective, input_len=512)
    found = search(asked, runners=1000)
    assert all(plan.loss >= 0 for plan in found.runners_up)
    assert [plan.loss for plan in found.runners_up] == sorted(plan.loss for plan in found.runners_up)
    figures = {
        "latency": lambda plan: plan.latency_s,
        "cost": lambda plan: plan.cost_chip_s_per_token,
        "throughput": lambda plan: 1 / plan.tokens_per_s,
    }[objective]
    best = figures(found.chosen)
    for plan in found.runners_up:
        assert figures(plan) >= best
        assert plan.loss == pytest.approx(figures(plan) / best - 1)
        assert plan.worse_term in TERMS
        assert plan.terms[plan.binding_term] == max(plan.terms.values())
    # Runners-up differ in something that can be named: chips, mesh, dtype, batch or layouts.
    assert {plan.point.num_chips for plan in found.runners_up} > {found.chosen.point.num_chips}


def test_a_plan_is_what_the_engine_answers():
    plan = search(workload(phase="decode", input_len=1984)).chosen
    layout, attention = plan.layouts["decode"]
    answer = AnalyticEngine().estimate([replace(plan.point, ffn_layout=layout, attn_sharding=attention)])[0]
    assert answer.latency_s == pytest.approx(plan.latency_s)
    assert answer.facts.peak_hbm_bytes == pytest.approx(plan.peak_hbm_bytes)
    assert plan.cost_chip_s_per_token == pytest.approx(64 * plan.latency_s / (64 * 64))


def test_layouts_of_two_phases_keep_the_weights_in_place():
    found = search(workload(batch_size=512), runners=1000)
    for plan in (found.chosen, *found.runners_up):
        assert len({layout == "ws_1d" for layout, _ in plan.layouts.values()}) == 1
    assert found.chosen.layouts["prefill"][0].startswith("wg_")
    assert found.chosen.layouts["decode"][0] == "ws_2d"


def test_limits_bind():
    free = search(workload(batch_size="auto", objective="throughput", phase="decode", input_len=1984)).chosen
    asked = {"batch_size": "auto", "objective": "throughput", "phase": "decode", "input_len": 1984}
    held = search(workload(step_limit_s=free.step_time_s / 2, **asked)).chosen
    assert held.step_time_s <= free.step_time_s / 2
    assert held.tokens_per_s < free.tokens_per_s
    lean = search(workload(hbm_limit_bytes=15e9, **asked)).chosen
    assert lean.peak_hbm_bytes <= 15e9
    assert lean.point.weight_dtype == "int8"
    short = search(workload(latency_limit_s=2.5, **asked)).chosen
    assert short.latency_s <= 2.5


def test_gpus_are_cut_by_tensor_and_pipeline():
    asked = workload(model="mt-nlg-530b", hw="a100-80gb", num_chips=[16, 24, 32], weight_dtype="float16", input_len=60)
    cuts = {(point.num_chips, point.tensor_parallel, point.pipeline_parallel) for point in ways_of(asked).points}
    assert {(16, 16, 1), (24, 8, 3), (32, 32, 1)} <= cuts
    assert all(tensor * pipeline == chips for chips, tensor, pipeline in cuts)
    assert all(tensor <= 8 or tensor % 8 == 0 for _, tensor, _ in cuts)
    found = search(asked)
    assert found.chosen.point.tensor_parallel == 32
    assert found.chosen.layouts["decode"] == ("ws_1d", "heads")


def test_every_mesh_of_a_chip_count_is_tried():
    meshes = {point.mesh for point in ways_of(workload(model="palm-62b", num_chips=32, weight_dtype="int8")).points}
    assert meshes == {(2, 4, 4), (4, 2, 4), (4, 4, 2)}


def test_chip_counts():
    from bench.sweep.catalog import load_chip

    assert counts_up_to(load_chip("tpu-v4"), 256) == (1, 4, 8, 16, 32, 64, 128, 192, 256)
    assert counts_up_to(load_chip("a100-80gb"), 40) == (1, 2, 4, 8, 16, 32)


def test_no_memory_says_by_how_much_and_what_would_fit():
    asked = workload(num_chips=16, input_len=1984)
    found = search(asked)
    assert found.chosen is None
    assert not found.memory_fits
    missing = shortfall(found)
    assert "GB too much" in missing.message
    assert set(missing.would_fit) > {"num_chips", "offload"}
    for key, value in missing.would_fit.items():
        plural = {"batch_size": "batch_sizes", "weight_dtype": "weight_dtypes"}.get(key, key)
        change = value if key == "offload" else (value,)
        assert search(replace(asked, **{plural: change})).chosen is not None, key


def test_a_model_too_large_for_one_gpu_is_told_where_its_weights_and_cache_may_wait():
    keys = {"model": "llama-2-70b", "hw": "h100-80gb", "num_chips": 1, "phase": "decode", "input_len": 512}
    asked = workload(**keys, weight_dtype="bfloat16", batch_size=[512])
    missing = shortfall(search(asked))
    assert missing.would_fit["offload"] == missing.would_fit["offload_kv"] == "host"
    assert "or offload=host with offload_kv=host" in missing.message
    assert search(replace(asked, offload="host", offload_kv="host")).chosen.point.offload == "host"
    # A chip whose file states no link is told nothing of it.
    unknown = replace(asked, chip=replace(asked.chip, host_link_bytes_per_s=None))
    assert "offload" not in shortfall(search(unknown)).would_fit


def test_micro_batches_are_chosen_and_are_no_more_than_the_batch():
    keys = {"model": "gpt-175b", "hw": "a100-80gb", "num_chips": 16, "weight_dtype": "bfloat16", "batch_size": [2, 64]}
    open_ = workload(**keys, phase="generate", input_len=128, output_len=8)
    ways = ways_of(open_)
    assert all(
        ways.point(place).micro_batches in (None, 1) for place in range(len(ways.index)) if ways.grid.batch[place] < 2
    )
    for place in range(len(ways.index)):
        ways.point(place).check()
    staged = [search(replace(open_, micro_batches=(each,))) for each in (1, 2)]
    best = search(open_).chosen
    assert best.value <= min(each.chosen.value for each in staged)
    fixed = {each.point.micro_batches for each in (staged[1].chosen, *staged[1].runners_up)}
    assert fixed <= {None, 2}


def test_a_draft_is_as_long_as_is_fastest():
    """The lengths are asked one by one: none is faster, and none pays where nothing is accepted."""
    asked = {"model": "llama-3-70b", "hw": "h100-80gb", "num_chips": 8, "phase": "decode", "batch_size": 1}
    chosen = search(workload(**asked, input_len=512)).chosen
    found = drafted(chosen, {"speculative": "draft", "draft_model": load_model("llama-3-8b"), "acceptance_rate": 0.8})
    times = [each.latency_s for each in AnalyticEngine().estimate([replace(found.point, draft_len=n) for n in LENGTHS])]
    assert found.latency_s == min(times)
    assert found.point.draft_len == 1 + times.index(min(times))
    assert found.speedup > 1
    assert f"draft_len={found.point.draft_len} is the fastest of 1 to 16" in found.sentence
    hopeless = drafted(chosen, {"speculative": "ngram", "acceptance_rate": 0.0})
    assert (hopeless.point.draft_len, hopeless.speedup < 1) == (1, True)
    with pytest.raises(Unsupported, match="acceptance_rate=auto"):
        drafted(chosen, {"speculative": "ngram"})


def test_what_would_fit_is_found_where_some_numbers_of_chips_cannot_share_the_model():
    found = search(workload(model="llama-3-8b", hw="h100-80gb", num_chips=1, batch_size=100_000, weight_dtype="int8"))
    assert shortfall(found).would_fit  # 2,048 GPUs cannot share 32 layers and 32 heads in any way


def test_too_slow_says_by_how_much():
    found = search(workload(latency_limit_s=0.5))
    assert found.chosen is None
    assert found.memory_fits
    missing = shortfall(found)
    assert "s over latency_limit_s" in missing.message
    assert f"{found.closest.latency_s:.4g} s" in missing.message
    slow_step = search(workload(step_limit_s=1e-4))
    assert "over step_limit_s" in shortfall(slow_step).message


def test_shortfall_is_only_for_what_failed():
    with pytest.raises(ValueError, match="chosen"):
        shortfall(search(workload()))


def test_the_command_in_json(command):
    code, content = command("plan", "model=palm-540b", "num_chips=64", "batch_size=64", "runners=3")
    assert code == 0
    assert set(content) == {
        *("objective", "hw", "price", "chosen", "runners_up", "not_told_apart", "crossovers", "other_hw")
    }
    assert (content["hw"], content["price"], content["other_hw"]) == ("tpu-v4", None, [])
    assert content["chosen"]["mesh_shape"] == [4, 4, 4]
    assert set(content["chosen"]["layouts"]) == {"prefill", "decode"}
    assert len(content["runners_up"]) == 3
    assert all(plan["loss"] > 0 and plan["binding_term"] for plan in content["runners_up"])
    units = [unit for each in content["crossovers"] for unit in ("tokens", "chips") if unit in each]
    assert units.count("tokens") == 3
    assert units.count("chips") == 1


def test_no_plan_is_exit_code_one_with_the_reason(command):
    code, content = command("plan", "model=palm-540b", "num_chips=16", "weight_dtype=bfloat16")
    assert code == 1
    assert content["chosen"] is None
    assert "would fit" in content["message"]
    assert content["would_fit"]["num_chips"] > 16


def test_the_table_names_the_best_and_the_losses(capsys):
    from bench.cli.args import parse
    from bench.cli.commands.plan import KEYS, main

    _, settings = parse("plan", ["model=palm-540b", "num_chips=64", "batch_size=64", "phase=decode"], KEYS, {})
    assert main(None, settings) == 0
    out = capsys.readouterr().out
    assert "best" in out
    assert "ws_2d/batch" in out
    assert "ws_1d → ws_2d" in out


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"model": "palm-541b"}, "palm-541b"),
        ({"hw": "tpu-v40"}, "tpu-v40"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": []}, r"batch_size=\[\]: is an empty list"),
        ({"input_len": -1}, "input_len=-1"),
        ({"latency_limit_s": -1}, "latency_limit_s=-1"),
        ({"num_chips": "many"}, "num_chips=many"),
    ],
)
def test_wrong_questions_name_the_key(keys, words):
    with pytest.raises(InvalidRequest, match=words):
        workload(**keys)


def test_chips_that_form_no_slice_and_chips_without_datasheet():
    with pytest.raises(InvalidRequest, match="num_chips=7"):
        search(workload(num_chips=7))
    with pytest.raises(Unsupported, match="no datasheet"):
        search(workload(model="tiny", hw="cpu", num_chips=8))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["acceptance_rate=0.5"], "acceptance_rate=0.5: is about a draft, and speculative=none"),
        (["draft_len=[2,4]"], "is about a draft"),
        (["planner=alpa", "offload=host"], "offload=host: is not read with planner=alpa"),
        (["speculative=draft", "acceptance_rate=0.5"], "draft_model"),
    ],
)
def test_keys_of_a_method_alone_are_refused(command, words, says):
    with pytest.raises((InvalidRequest, Unsupported), match=says):
        command("plan", "model=palm-8b", "num_chips=4", "batch_size=8", "phase=decode", *words)


def test_the_command_prints_the_draft_beside_the_plan(command):
    words = ["speculative=self", "acceptance_rate=0.9", "draft_layers=4", "draft_len=[2,6]"]
    code, content = command("plan", "model=palm-8b", "num_chips=4", "batch_size=1", "phase=decode", *words)
    assert code == 0
    assert content["draft"]["draft_len"] in (2, 6)
    assert content["draft"]["speedup"] == pytest.approx(content["chosen"]["latency_s"] / content["draft"]["latency_s"])

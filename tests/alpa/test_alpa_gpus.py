"""Plans for GPUs: links of switches and networks by hand, and costs against the closed forms of GPU nodes."""

from dataclasses import replace

import numpy as np
import pytest
from alpa_cases import a_graph, a_point

from engines.analytic.alpa import sums
from engines.analytic.alpa.named import named_choices
from engines.analytic.alpa.network import Network, nodes_of
from engines.analytic.alpa.passes import passes_of
from engines.analytic.alpa.planner import planned
from engines.analytic.alpa.stages import parts_of
from engines.analytic.engine import AnalyticEngine
from engines.analytic.gpu_links import all_reduce_s
from engines.analytic.grid import grid_of
from engines.core.runtime import shipped
from engines.core.sharding_summary import summary
from engines.core.shardings import Shardings


def on_gpus(model="llama-3-8b", num_chips=8, **keys):
    return a_point(model, num_chips, **{"hw": "h100-80gb", "weight_dtype": "bfloat16"} | keys)


@pytest.mark.parametrize(
    ("mesh", "nodes"),
    [
        ((2, 2, 2), {"xyz": 1}),
        ((2, 2, 4), {"x": 2, "y": 1, "z": 1, "yz": 1, "xz": 2, "xyz": 2}),
        ((4, 4, 4), {"z": 1, "y": 2, "x": 4, "yz": 2, "xy": 8, "xyz": 8}),
        ((1, 4, 8), {"z": 1, "y": 4}),
    ],
)
def test_gpus_along_axes_lie_on_so_many_nodes_of_eight(mesh, nodes):
    assert {axes: nodes_of(axes, mesh, 8) for axes in nodes} == nodes


def test_collectives_take_what_a_switch_and_cards_take():
    """8 H100 a node: 100 GB/s over the switch, 10 GB/s a card; starts of 10 µs, 100 µs more between nodes."""
    point = on_gpus(num_chips=16, mesh_shape=(2, 2, 4))
    rates = {"link_bytes_per_s": 1e11, "link_efficiency": 1.0, "network_bytes_per_s": 1e10, "network_efficiency": 1.0}
    starts = {"collective_s": 1e-5, "hop_s": 0.0, "network_collective_s": 1e-4}
    grid = replace(grid_of([point]), **{name: np.full(1, value) for name, value in (rates | starts).items()})
    network = Network(grid, point.mesh)
    for kind, axes, seconds in (
        ("all-gather", "z", 1e-5 + 3 / 4 * 1e-2),
        ("reduce-scatter", "yz", 1e-5 + 7 / 8 * 1e-2),
        ("all-reduce", "yz", 1e-5 + 2 * 7 / 8 * 1e-2),
        ("all-reduce", "x", 1.1e-4 + 2 / 2 * 1e-1),  # one GPU of each node: its own card
        ("all-gather", "xz", 1.1e-4 + 7 / 8 * 1e9 / 4e10),  # four of each node: four cards
        ("all-gather", "xyz", 1.1e-4 + 15 / 16 * 1e9 / 8e10),
        ("all-to-all", "yz", 1e-5 + 7 / 8 * 1e-2),
        ("all-to-all", "xyz", 1.1e-4 + 1 / 2 * 1e-1),
        ("collective-permute", "z", 1e-5 + 1e-2),
        ("collective-permute", "x", 1.1e-4 + 1e-1),
    ):
        assert network.seconds(kind, axes, 1e9) == pytest.approx(seconds), (kind, axes)
    assert network.seconds("all-reduce", "", 1e9) == 0.0


@pytest.mark.parametrize("count", [2, 4, 8])
def test_an_all_reduce_inside_a_node_is_the_closed_forms(count):
    point = on_gpus(num_chips=count)
    grid = grid_of([point])
    transfer, start = all_reduce_s(grid, np.full(1, 1e8))
    assert Network(grid, point.mesh).seconds("all-reduce", "xyz", 1e8) == pytest.approx(float((transfer + start)[0]))


@pytest.mark.parametrize("model", ["llama-3-8b", "mt-nlg-530b"])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("runtime", ["best", "torch-eager"])
def test_tensor_parallelism_costs_what_the_closed_form_says(model, phase, runtime, monkeypatch):
    """With sums in bfloat16, as our own program sends them, and without those of the tables."""
    monkeypatch.setattr(sums, "TERM_BYTES", 2.0)
    point = on_gpus(model, 4, phase=phase, batch_size=16, output_len=1, runtime=shipped(runtime))
    facts = AnalyticEngine().estimate([point])[0].facts
    (one,) = passes_of(point)
    choice = dict(named_choices(point.model, point.mesh, 16, one.graph, megatron=True))["ws_1d", "heads"]
    found = one.evaluated(choice)
    assert found.terms.compute_s == pytest.approx(facts.compute_s, rel=1e-9)
    assert found.terms.memory_s == pytest.approx(facts.memory_s, rel=1e-9)
    assert found.fixed_s + found.beside_s == pytest.approx(facts.overhead_s, rel=1e-9)
    assert one.graph.without("table").terms(choice).waiting_s == pytest.approx(facts.communication_s, rel=1e-9)
    terms = found.terms
    parts = (terms.compute_s, terms.memory_s, terms.waiting_s, found.fixed_s, found.beside_s)
    assert found.seconds == pytest.approx(sum(parts) - terms.overlapped_s - found.hidden_s)


@pytest.mark.parametrize("phase", ["prefill", "generate"])
def test_no_named_layout_takes_less(phase):
    plan = planned(on_gpus(num_chips=4, phase=phase, batch_size=4, planner="alpa"), stages=False)
    assert ("ws_1d", "heads") in plan.named_s
    assert plan.seconds <= min(plan.named_s.values()) * (1 + 1e-6)


def test_over_nodes_the_batch_is_split_and_inside_them_the_layer():
    """A sum over the network costs more than reading weights twice: replicas, as every stack runs them."""
    plan = planned(on_gpus("llama-3-70b", 16, mesh_shape=(2, 2, 4), batch_size=64, planner="alpa"), stages=False)
    assert summary(plan.shardings).endswith("attention over batch x and heads zy")
    assert plan.name is None
    assert plan.seconds < min(plan.named_s.values())


def test_a_point_of_the_field_has_a_time_and_a_layout():
    """Llama 3 70B on 8 H100, as the sweep of the field asks for it."""
    point = on_gpus("llama-3-70b", 8, batch_size=16, input_len=1984, output_len=64, planner="alpa")
    (answer,) = AnalyticEngine().estimate([point])
    assert answer.status == "ok"
    said = summary(Shardings.parse(answer.facts.resolved["shardings"]))
    assert said == "matmuls in -→zyx, out zyx→-, attention over heads zyx"
    stated = replace(point, planner="auto", partitioner="gspmd", shardings=answer.facts.resolved["shardings"])
    assert AnalyticEngine().estimate([stated])[0].latency_s == pytest.approx(answer.latency_s)
    assert answer.facts.details["plan"]["named_layout"] == "ws_1d/heads"


def test_stages_are_of_gpus_that_follow_each_other():
    assert parts_of((2, 2, 4), in_order=True) == [(2, 2, 4), (1, 2, 4), (1, 1, 4), (1, 1, 2), (1, 1, 1)]
    assert parts_of((3, 2, 4), in_order=True) == [(3, 2, 4)]
    point = on_gpus(num_chips=4, phase="prefill", batch_size=16, planner="alpa")
    found = planned(point)
    assert found.pipeline.seconds <= found.seconds * (1 + 1e-9)
    # A host that starts kernels would start those of all stages: nothing is said of them.
    assert planned(replace(point, runtime=shipped("torch-eager"))).pipeline is None


def test_fused_attention_keeps_no_scores():
    graph = a_graph(on_gpus(phase="prefill", input_len=8192, batch_size=1, num_chips=1))
    work = next(each.work_bytes for each in graph.operators if each.name == "attention")
    assert float(work[0]) == 8192 * (2 * 32 + 2 * 8) * 128 * 2


@pytest.mark.parametrize("key", ["tensor_parallel", "pipeline_parallel"])
def test_a_degree_states_what_the_planner_chooses(key):
    answer = AnalyticEngine().estimate([on_gpus(planner="alpa", **{key: 8})])[0]
    assert answer.status == "unsupported"
    assert f"leave {key}=auto" in answer.error

"""Plans of experts: an operator's costs against the closed forms of a torus and of GPUs, and the plans they make."""

from dataclasses import replace

import numpy as np
import pytest
from alpa_cases import a_graph, a_point

from engines.analytic.alpa.experts import Routed
from engines.analytic.alpa.exported import choice_of_shardings
from engines.analytic.alpa.gpu_costs import costs_of
from engines.analytic.alpa.network import Network
from engines.analytic.alpa.roles import having
from engines.analytic.engine import AnalyticEngine
from engines.analytic.gpu_experts import expert_cost as of_gpus
from engines.analytic.gpu_ranks import Ranks
from engines.analytic.grid import grid_of
from engines.analytic.torus_experts import expert_cost
from engines.core.layout import EXPERT_DISPATCHES
from engines.core.sharding_summary import summary
from engines.core.shardings import EXPERTS, Shardings, sharded_values
from engines.transformer.partition.resolve import plan_of


def mixtral(num_chips=4, **keys):
    return a_point("mixtral-8x7b", num_chips, **{"weight_dtype": "bfloat16", "batch_size": 16} | keys)


def routed_of(point, prefill):
    grid = grid_of([point])
    return Routed(costs_of(grid, prefill=prefill), Network(grid, point.mesh))


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize(
    ("layout", "axes", "dispatch", "roles", "stream"),
    [
        ("ws_1d", "", "gather", "nnn", "ccc"),
        ("ws_2d", "", "gather", "knn", "ccc"),
        ("ws_1d", "y", "gather", "nen", "ccc"),
        ("ws_2d", "yz", "gather", "kee", "ccc"),
        ("ws_2d", "x", "gather", "enn", "ccc"),
        ("wg_x", "y", "gather", "gen", "tcc"),
        ("wg_xyz", "y", "all_to_all", "gag", "ttt"),
        ("wg_xyz", "xyz", "all_to_all", "aaa", "ttt"),
    ],
)
def test_a_named_layout_of_experts_costs_what_the_closed_form_says(layout, axes, dispatch, roles, stream, phase):
    prefill = phase == "prefill"
    point = mixtral(8, mesh_shape=(2, 2, 2), phase=phase, partitioner="gspmd")
    routed = routed_of(point, prefill)
    costs, grid = routed.costs, routed.costs.grid
    asked = replace(grid, dispatch=np.full(1, EXPERT_DISPATCHES.index(dispatch)))
    closed = expert_cost(asked, layout, axes, np.full(1, costs.length))
    assert bool(closed.sends[0]) == (dispatch == "all_to_all")
    found, layers = routed.cost(roles), point.model.num_layers
    assert found.compute_s == pytest.approx(layers * float(closed.compute_s[0]), rel=1e-9)
    moved = closed.weights_bytes / grid.weight_stream + closed.row_bytes * grid.vector_passes
    assert found.memory_s == pytest.approx(layers * float(moved[0]) / costs.stream, rel=1e-9)
    sent = found.waiting_s + routed.arriving_s(stream, roles) + routed.leaving_s(roles, stream)
    assert sent == pytest.approx(layers * float(closed.transfers.total_s[0]), rel=1e-9)


@pytest.mark.parametrize(("roles", "degree"), [("nnn", 1), ("een", 4), ("eee", 8)])
@pytest.mark.parametrize("prefill", [False, True])
def test_experts_on_gpus_cost_what_the_closed_form_says(roles, degree, prefill):
    point = mixtral(8, hw="h100-80gb", phase="prefill" if prefill else "decode")
    routed = routed_of(point, prefill)
    costs, grid, layers = routed.costs, routed.costs.grid, point.model.num_layers
    tokens = np.full(1, costs.tokens)
    closed = of_gpus(grid, Ranks(data=np.ones(1), experts=np.full(1, float(degree))), tokens, tokens)
    found = routed.cost(roles)
    assert found.compute_s == pytest.approx(layers * float(closed.flops[0]) / costs.rate(point.model.d_model), rel=1e-9)
    vectors = float((closed.row_elements * grid.act_bytes * grid.vector_passes)[0]) / costs.stream
    loaded = float((closed.weights_bytes / grid.weight_stream)[0]) / costs.stream
    assert found.memory_s == pytest.approx(layers * (loaded + vectors), rel=1e-9)
    assert found.fetched_s == 0.0  # what is hit is known behind the router alone


def test_each_expert_is_whole_or_cut_evenly():
    point = mixtral(16, hw="tpu-v5e", batch_size=4)
    found = routed_of(point, False).shardings
    sizes = dict(zip("xyz", point.mesh, strict=True))
    assert point.mesh == (4, 4, 1)
    assert "aer" not in found  # 16 parts of 8 experts
    assert "ttr" not in found  # 16 parts of 4 sequences
    assert {"enr", "kar", "gnr", "nnr"} <= set(found)
    for roles in found:
        assert all(size > 1 or roles["xyz".index(axis)] == "r" for axis, size in sizes.items())
        assert having(roles, EXPERTS)


@pytest.mark.parametrize(
    ("phase", "hw", "keys"),
    [
        ("decode", "tpu-v5e", {"shared_expert_d_ff": 4096, "dense_layers": 2}),
        ("prefill", "tpu-v5e", {}),
        ("generate", "h100-80gb", {"dense_layers": 2}),
    ],
)
def test_a_plan_of_experts_is_no_worse_than_named_ones_and_reads_back(phase, hw, keys):
    point = mixtral(8, hw=hw, phase=phase, planner="alpa", batch_size=8)
    point = replace(point, model=replace(point.model, **keys))
    if hw == "tpu-v5e":
        point = replace(point, num_chips=16, mesh_shape=(4, 4, 1), batch_size=16)
    (answer,) = AnalyticEngine().estimate([point])
    assert answer.status == "ok", answer.error
    plan = answer.facts.details["plan"]
    assert plan["pass_s"] <= plan["best_named_pass_s"] * (1 + 1e-6)
    text = answer.facts.resolved["shardings"]
    stated = replace(point, planner="auto", partitioner="gspmd", shardings=text)
    stated.check()
    plan_of(replace(stated, engine="compiled")).check()
    assert AnalyticEngine().estimate([stated])[0].latency_s == pytest.approx(answer.latency_s)


def test_weights_of_experts_are_counted_where_they_lie():
    point = mixtral(8, mesh_shape=(2, 2, 2))
    graph = a_graph(point)
    operator = next(each for each in graph.operators if each.name == "experts")
    by_roles = dict(zip(operator.shardings, operator.held_bytes, strict=True))
    model, layers = point.model, point.model.num_layers
    matrices = 8 * 3 * model.d_model * model.d_ff * 2
    router = 8 * model.d_model * 2
    for roles, parts in (("eee", 8), ("ann", 8), ("ggg", 8), ("ttt", 1), ("tkn", 4)):
        assert by_roles[roles] == pytest.approx(layers * (matrices / parts + router)), roles
    assert "middle" in {end for edge in graph.edges for end in edge.ends if "experts" in edge.ends}


def test_skew_and_capacity_count():
    point = mixtral(8, hw="h100-80gb", batch_size=64)
    plain, skewed, capped = (
        routed_of(replace(point, **keys), False).cost("eee")
        for keys in ({}, {"routing_skew": 1.0}, {"routing_skew": 1.0, "expert_capacity": 1.0})
    )
    assert skewed.compute_s > plain.compute_s > capped.compute_s


def test_experts_in_a_summary_and_as_text():
    dims = dict(zip(EXPERTS, ("z", "y", "", "x", "", ""), strict=True))
    point = mixtral(8, mesh_shape=(2, 2, 2))
    cuts = {
        each.name: ("", "", "")[: 3 if each.name.endswith((".in", ".out")) else 2] for each in a_graph(point).operators
    }
    told = Shardings.of(cuts | {"experts": tuple(dims.values())})
    assert Shardings.parse(told.text) == told
    told.check(point.model)
    assert choice_of_shardings(told)["experts"] == "nea"
    assert summary(told).startswith("experts over z sent tokens and y, each -→x, attention's matmuls in whole")


def test_an_expert_of_all_tokens_and_layers_without_experts_count_in_their_layers():
    """Compute of the feed-forward that all tokens pass is 2 operations for each of its weights and tokens."""
    point, shared, dense = mixtral(8, mesh_shape=(2, 2, 2)), 4096, 8
    model = replace(point.model, shared_expert_d_ff=shared, dense_layers=dense)
    graph = a_graph(replace(point, model=model))
    operators = {each.name: each for each in graph.operators}
    assert operators.keys() == sharded_values(model).keys()
    plain = {each.name: each for each in a_graph(point).operators}
    number = plain["experts"].shardings.index("eee")
    kept = (model.num_layers - dense) / model.num_layers
    assert operators["experts"].compute_s[number] == pytest.approx(kept * plain["experts"].compute_s[number])
    columns = dense * model.d_ff + (model.num_layers - dense) * shared
    held = operators["ffn.out.weights"].held_bytes[operators["ffn.out.weights"].shardings.index("kkk")]
    assert held == pytest.approx(columns * model.d_model * 2 / 8)

"""The integer program against brute force, and its plans against every named layout."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from alpa_cases import a_graph, a_point
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.analytic.alpa import sums
from engines.analytic.alpa.exported import choice_of_shardings, shardings_of
from engines.analytic.alpa.graph import Edge, Graph, Operator
from engines.analytic.alpa.ilp import best_choice
from engines.analytic.alpa.named import named_choices
from engines.analytic.alpa.planner import evaluated, planned
from engines.analytic.engine import AnalyticEngine
from engines.analytic.grid import grid_of
from engines.analytic.torus_links import gathering
from engines.core.errors import InvalidRequest, OutOfMemory
from engines.core.layout import LAYOUTS
from engines.core.shardings import Shardings


@st.composite
def graphs(draw):
    """Small graphs with a cycle, whose seconds are microseconds and whose memory may not hold every choice."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=3, max_size=4))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    names = [f"o{number}" for number in range(len(sizes))]

    def seconds(*shape):
        return rng.integers(0, 50, shape) * 1e-6

    operators = []
    for name, size in zip(names, sizes, strict=True):
        compute, memory = seconds(size), seconds(size)
        hidden = np.minimum(compute, memory) / 2
        operators.append(
            Operator(
                name=name,
                shardings=[str(each) for each in range(size)],
                compute_s=compute,
                memory_s=memory,
                overlapped_s=hidden,
                fetched_s=np.maximum(memory - hidden, 0) * rng.integers(0, 2, size),
                waiting_s=seconds(size),
                held_bytes=rng.integers(0, 4, size) * 1e9,
                work_bytes=rng.integers(0, 3, size) * 1e9,
            )
        )
    ends = [*itertools.pairwise(names), (names[-1], names[0])]
    edges = [
        Edge(ends=pair, waiting_s=seconds(*shape), memory_s=seconds(*shape))
        for pair in ends
        if (shape := tuple(sizes[names.index(each)] for each in pair))
    ]
    fixed, prefetch = draw(st.sampled_from([(0.0, 0.0), (2e-5, 0.9)]))
    return Graph(
        operators=operators, edges=edges, fixed_s=fixed, prefetch=prefetch, usable_bytes=6e9, constant_bytes=5e8
    )


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_the_program_finds_what_trying_every_choice_finds(graph):
    names = [each.name for each in graph.operators]
    every = (dict(zip(names, each, strict=True)) for each in itertools.product(*(o.shardings for o in graph.operators)))
    fitting = [graph.seconds(choice) for choice in every if graph.fits(choice)]
    if not fitting:
        with pytest.raises(OutOfMemory):
            best_choice(graph)
        return
    found = best_choice(graph)
    assert graph.fits(found)
    assert graph.seconds(found) == pytest.approx(min(fitting), rel=1e-6, abs=1e-11)


CASES = st.tuples(
    st.sampled_from(["llama-3-8b", "palm-8b", "gpt-j-6b", "palm-540b"]),
    st.sampled_from([(4, (1, 2, 2)), (8, (2, 2, 2)), (16, (2, 2, 4))]),
    st.sampled_from(["decode", "prefill"]),
    st.sampled_from([1, 4, 16, 64]),
    st.sampled_from([64, 2048]),
)


@given(CASES)
@settings(max_examples=6, deadline=None)
def test_no_named_layout_that_fits_takes_less(case):
    model, (chips, mesh), phase, batch, length = case
    hw = "tpu-v5p" if model == "palm-540b" and chips == 16 else "tpu-v4"
    point = a_point(model, chips, hw=hw, mesh_shape=mesh, phase=phase, batch_size=batch, input_len=length)
    graph = a_graph(point)
    named = dict(named_choices(point.model, point.mesh, batch, graph))
    weight_stationary = {("ws_1d", "heads"), ("ws_2d", "heads")}
    assert weight_stationary <= named.keys()
    assert {name for name, _ in named} == {
        layout.name for layout in LAYOUTS.values() if batch % graph_size(layout.gathered, mesh) == 0
    }
    fitting = [graph.seconds(choice) for choice in named.values() if graph.fits(choice)]
    if not fitting:
        return
    found = best_choice(graph)
    assert graph.fits(found)
    assert graph.seconds(found) <= min(fitting) * (1 + 1e-6)


def graph_size(axes, mesh):
    return int(np.prod([mesh["xyz".index(axis)] for axis in axes], initial=1))


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_with_reduce_scatters_of_activations_a_named_layout_sends_what_the_closed_form_says(phase, monkeypatch):
    """The compiler's sums taken away, and the norms', what is left is the closed form of our own program."""
    for name, value in (("LANES", 1), ("SUBLANES", 1), ("MOST_SCATTERED", 3), ("TERM_BYTES", 2.0)):
        monkeypatch.setattr(sums, name, value)
    point = a_point("mt-nlg-530b", 64, phase=phase, batch_size=64, output_len=1, partitioner="gspmd")
    graph = a_graph(point, tables=False)
    for (layout, attention), choice in named_choices(point.model, point.mesh, 64, graph):
        if LAYOUTS[layout].gathered or attention == "batch":
            continue  # moments of gathered weights, and attention's exchanges, of which a compiler makes more
        stated = replace(point, ffn_layout=layout, attn_sharding=attention)
        facts = AnalyticEngine().estimate([stated])[0].facts
        terms = graph.terms(choice)
        norms = (each for each in graph.operators if each.name in ("residual", "middle"))
        normed = sum(float(each.waiting_s[each.shardings.index(choice[each.name])]) for each in norms)
        assert terms.waiting_s - normed == pytest.approx(facts.communication_s, rel=1e-9)
        assert terms.compute_s == pytest.approx(facts.compute_s, rel=0.01)


def test_sums_of_a_named_layout_take_twice_the_bytes_of_the_closed_form():
    """MT-NLG 530B in ws_1d over heads: the only sums are the two matmuls' out, float32 for bfloat16."""
    point = a_point("mt-nlg-530b", 64, phase="prefill", batch_size=64, input_len=2048, output_len=1)
    graph = a_graph(point, tables=False)
    choice = dict(named_choices(point.model, point.mesh, 64, graph))["ws_1d", "heads"]
    grid, layers = grid_of([point]), point.model.num_layers
    tokens, width = 64 * 2048, point.model.d_model
    # Three axes: an all-reduce, which sends twice what a reduce-scatter of as many bytes does.
    summed = 2 * float(gathering(grid, "xyz", np.full(1, tokens * width * 4.0)).total_s[0])
    gathered = float(gathering(grid, "xyz", np.full(1, tokens * width * 2.0)).total_s[0])
    normed = 2 * float(gathering(grid, "xyz", np.full(1, tokens * 8.0)).total_s[0])
    assert graph.terms(choice).waiting_s == pytest.approx(2 * layers * (summed + gathered + normed), rel=1e-6)


def test_a_plan_is_the_same_again_and_reads_back():
    point = a_point("llama-3-8b", 4, mesh_shape=(1, 2, 2), batch_size=64, output_len=64, planner="alpa")
    first, second = (planned(point, stages=False) for _ in range(2))
    assert first.shardings == second.shardings
    assert Shardings.parse(first.shardings.text) == first.shardings
    again = choice_of_shardings(first.shardings)
    assert shardings_of(point.model, point.mesh, again) == first.shardings
    assert {name: again[name] for name in first.choice} == dict(first.choice)
    assert first.name is None
    assert first.seconds < min(first.named_s.values())
    stated = replace(point, planner="auto", partitioner="gspmd", shardings=first.shardings.text)
    answers = AnalyticEngine().estimate([point, stated])
    assert answers[0].latency_s == pytest.approx(64 * first.seconds)
    assert answers[0].latency_s == pytest.approx(answers[1].latency_s)
    facts = answers[0].facts
    parts = (facts.compute_s, facts.memory_s, facts.communication_s, facts.overhead_s, -facts.overlapped_s)
    assert sum(parts) == pytest.approx(answers[0].latency_s)
    assert facts.program_id == AnalyticEngine().program_id(point)
    assert facts.resolved["shardings"] == first.shardings.text


def test_a_generation_has_one_plan_of_least_time_for_both_phases():
    point = a_point("palm-8b", 4, mesh_shape=(1, 2, 2), batch_size=16, phase="generate", output_len=32, planner="alpa")
    plan = planned(point)
    assert {phase: each.times for phase, each in plan.passes.items()} == {"prefill": 1, "decode": point.decode_steps}
    alone = {phase: planned(replace(point, phase=phase), stages=False) for phase in plan.passes}
    least = alone["prefill"].seconds + point.decode_steps * alone["decode"].seconds
    assert least * (1 - 1e-6) <= plan.seconds <= min(plan.named_s.values()) * (1 + 1e-6)
    for phase, one in alone.items():  # either phase's plan takes no less for both
        other = evaluated(point, one.choice)
        assert plan.seconds <= sum(each.times * each.seconds for each in other.values()) * (1 + 1e-6), phase
    (answer,) = AnalyticEngine().estimate([point])
    assert answer.latency_s == pytest.approx(plan.seconds)
    assert answer.latency_s == pytest.approx(answer.ttft_s + point.decode_steps * answer.step_time_s)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": "deepseek-v3", "num_chips": 8}, "knows no shardings of"),
        ({"model": "palm-540b"}, "fit in a chip's memory"),
        ({"ffn_layout": "ws_2d"}, "leave ffn_layout=auto"),
        ({"speculative": "ngram", "acceptance_rate": 0.5}, "planner=alpa"),
    ],
)
def test_what_has_no_plan_is_told(keys, message):
    answer = AnalyticEngine().estimate([a_point(planner="alpa", **keys)])[0]
    assert answer.status != "ok"
    assert message in answer.error
    assert answer.status == ("oom" if "memory" in message else "unsupported")


def test_shardings_of_another_point_are_refused():
    text = planned(a_point(batch_size=8, planner="alpa"), stages=False).shardings.text
    with pytest.raises(InvalidRequest, match="plan planner=alpa out=FILE"):
        a_point("llama-3-8b", 4, batch_size=8, shardings=text.replace("attention:", "attention:x.q/"))
    wrong = a_point("palm-8b", 4, shardings=text, partitioner="gspmd")
    assert "is no value of model=palm-8b" in AnalyticEngine().estimate([wrong])[0].error
    for message, keys in (
        ("use partitioner=gspmd", {}),
        ("leave attn_sharding=auto", {"partitioner": "gspmd", "attn_sharding": "heads"}),
        ("axis of one chip", {"partitioner": "gspmd", "shardings": text.replace("table:-.", "table:x.")}),
    ):
        with pytest.raises(InvalidRequest, match=message):
            a_point(**{"shardings": text, "mesh_shape": (1, 2, 2), **keys}).check()

"""What is sent between shardings, and stages against brute force."""

import itertools

import numpy as np
import pytest
from alpa_cases import a_graph, a_point
from builders.models import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.sweep.catalog import load_model
from engines.analytic.alpa.exported import choice_of_shardings, shardings_of
from engines.analytic.alpa.pipeline import _Cut, _least_s, best_pipeline
from engines.analytic.alpa.roles import VALUE, Sent, assignments, having, sent
from engines.analytic.alpa.stages import Part, best_stages, parts_of
from engines.analytic.grid import grid_of
from engines.core.errors import InvalidRequest
from engines.core.layout import axes_size
from engines.core.sharding_summary import summary
from engines.core.shardings import Shardings, projections, sharded_values


@pytest.mark.parametrize(
    ("source", "target", "steps"),
    [
        ("rrc", "rrc", ()),
        ("rrr", "tcr", ()),  # a chip takes its part
        ("rrc", "rrr", (Sent("all-gather", "z", "", ""),)),
        ("ccc", "crr", (Sent("all-gather", "yz", "", "x"),)),
        ("uur", "ccr", (Sent("reduce-scatter", "xy", "", ""),)),
        ("ucc", "rcc", (Sent("all-reduce", "x", "", "yz"),)),
        ("ccc", "ttt", (Sent("all-to-all", "xyz", "", "xyz"),)),
        ("ctr", "rrr", (Sent("all-gather", "xy", "", ""), Sent("copy", "", "", ""))),
        ("tcr", "crr", (Sent("all-gather", "xy", "", ""), Sent("copy", "", "", ""))),
        # 2D weight-stationary columns: terms along x, columns over y and z, then over all.
        ("ucc", "ccc", (Sent("reduce-scatter", "x", "", "yz"),)),
        ("urc", "tcr", (Sent("reduce-scatter", "x", "", "yz"), Sent("all-gather", "z", "x", "y"))),
    ],
)
def test_what_turns_one_sharding_into_another(source, target, steps):
    assert sent(source, target) == steps


@given(st.sampled_from(assignments("tcur", (2, 2, 2))), st.sampled_from(assignments(VALUE, (2, 2, 2))))
def test_nothing_is_sent_twice_and_only_what_differs(source, target):
    steps = sent(source, target)
    pairs = list(zip(source, target, strict=True))
    if {("t", "c"), ("c", "t")} & {*pairs} and {("t", "r"), ("c", "r")} & {*pairs}:
        # Exchanged and gathered: a compiler gathers the whole value along all that split it by then.
        gathered = [each for each in steps if each.kind != "copy"][-1]
        assert (gathered.kind, gathered.rows, gathered.columns) == ("all-gather", "", "")
        return
    steps = [each for each in steps if each.kind != "copy"]
    along = "".join(each.axes for each in steps)
    assert len(set(along)) == len(along)
    moved = {axis for axis, a, b in zip("xyz", source, target, strict=True) if a != b and a != "r"}
    assert set(along) == moved
    if steps and steps[-1].kind == "all-gather":
        assert set(steps[-1].rows) == set(having(target, "t"))
        assert set(steps[-1].columns) == set(having(target, "c"))


@st.composite
def pipelines(draw):
    layers, chips = draw(st.integers(1, 5)), 4
    parts = [
        Part(size, *(draw(st.integers(1, 9)) / 1.0 for _ in range(4)), most_layers=draw(st.integers(1, 5)))
        for size in (4, 2, 1)
    ]
    return layers, chips, parts, draw(st.sampled_from([1, 2, 8]))


def every_pipeline(layers, chips, parts):
    """Every (layers, part) of stages that use all layers and chips."""
    if layers == 0:
        if chips == 0:
            yield ()
        return
    for count, index in itertools.product(range(1, layers + 1), range(len(parts))):
        if parts[index].chips <= chips:
            for rest in every_pipeline(layers - count, chips - parts[index].chips, parts):
                yield ((count, index), *rest)


def seconds_of(stages, parts, micro_batches):
    times = []
    for number, (count, index) in enumerate(stages):
        part, last = parts[index], number == len(stages) - 1
        if count > part.most_layers:
            return np.inf
        ends = part.first_s * (number == 0) + (part.last_s if last else part.handed_s)
        times.append(count * part.layer_s + ends)
    return sum(times) + (micro_batches - 1) * max(times)


@given(pipelines())
@settings(max_examples=80, deadline=None)
def test_stages_are_the_best_of_all(case):
    layers, chips, parts, micro_batches = case
    every = [seconds_of(each, parts, micro_batches) for each in every_pipeline(layers, chips, parts)]
    least = min(every, default=np.inf)
    found = best_stages(layers, chips, parts, micro_batches)
    if not np.isfinite(least):
        assert found is None
        return
    assert found.seconds == pytest.approx(least)
    assert seconds_of(found.stages, parts, micro_batches) == pytest.approx(least)


def test_parts_halve_a_slice_and_tile_it():
    assert parts_of((4, 4, 4))[:4] == [(4, 4, 4), (4, 4, 2), (4, 2, 2), (2, 2, 2)]
    sizes = [axes_size("xyz", each) for each in parts_of((2, 4, 8))]
    assert sizes == [64, 32, 16, 8, 4, 2, 1]
    assert parts_of((3, 1, 1)) == [(3, 1, 1)]


def test_a_pipeline_takes_no_less_than_its_bound():
    point = a_point("llama-3-8b", 4, mesh_shape=(1, 2, 2), batch_size=8, phase="prefill", input_len=2048)
    grid = grid_of([point])
    for count in (1, 4):
        cuts = [_Cut(point.model, grid, mesh, True, count, point.mesh) for mesh in parts_of(point.mesh)[1:]]
        parts = [each.solved() for each in cuts]
        stages = best_stages(point.model.num_layers, 4, parts, count)
        assert len(stages.stages) > 1
        assert _least_s(cuts, point.model.num_layers, 4, count) <= stages.seconds
    slow = best_pipeline(point.model, grid, point.mesh, prefill=True, one_stage_s=1e3, beside_s=0.0)
    assert len(slow.stages) > 1
    assert sum(layers for layers, _ in slow.stages) == point.model.num_layers
    assert sum(axes_size("xyz", mesh) for _, mesh in slow.stages) == 4


def test_shardings_name_every_value_of_a_layer():
    for model in ("palm-8b", "llama-3-8b", "gpt-j-6b"):
        point = a_point(model, 4)
        operators = {each.name for each in a_graph(point).operators}
        assert operators == sharded_values(point.model).keys()


@given(st.sampled_from(["palm-8b", "llama-3-8b"]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_axes_that_move_keep_their_order_behind_those_that_stay(name, seed):
    model, rng = load_model(name), np.random.default_rng(seed)
    choice = {}
    for value, dims in sharded_values(model).items():
        matrix = value == "table" or value.endswith(".weights")
        letters = "knr" if matrix else "tknr" if dims == 3 else VALUE
        choice[value] = str(rng.choice(assignments(letters, (2, 2, 2))))
    cuts = shardings_of(model, (2, 2, 2), choice)
    assert choice_of_shardings(cuts) == choice
    first = projections(model)[0]
    into, made, attended = cuts[f"{first}.in"], cuts[f"{first}.columns"], cuts["attention"]
    for order, came in (
        (made[0], (into[0], into[1], into[2])),
        (made[1], (into[2], into[1], into[0])),
        (attended[0], made),
        (attended[1], made[::-1]),
    ):
        # Copies of a chip come last, in any order.
        known = [axis for axis in "".join(came) if axis in order]
        assert order.startswith("".join(known))


@pytest.mark.parametrize("text", ["", "a", "a:x", "a:x.x", "residual:x.q", "residual:x.y/"])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(InvalidRequest, match="shardings"):
        Shardings.parse(text)


def test_a_summary_says_how_matmuls_and_attention_are_cut():
    def said(cuts, model):
        names = sharded_values(MODELS.get(model) or load_model(model))
        return summary(Shardings.of({name: cuts.get(name, ("",) * count) for name, count in names.items()}))

    assert said({}, "palm-8b") == "matmuls in whole, out whole, attention whole"
    feed_forward = {"ffn.in": ("", "y", "zx"), "ffn.out": ("x", "zx", "y"), "ffn.in.weights": ("yx", "z")}
    cuts = feed_forward | {"attention": ("xy", "z")}
    assert said(cuts, "llama-3-8b") == (
        "feed-forward in y→zx, out zx→y tokens x, attention's matmuls in whole, out whole, "
        "attention over batch xy and heads z"
    )
    gathered = {"fused.in": ("x", "", "z"), "fused.in.weights": ("yx", "z")}
    assert said(gathered, "palm-8b").startswith("matmuls in -→z tokens x weights gathered over yx, out whole")

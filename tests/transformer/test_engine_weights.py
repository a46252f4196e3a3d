import math

import hypothesis.strategies as st
import numpy as np
import pytest
from builders.models import MODELS
from builders.plans import plan_of
from builders.unfuse import unfuse
from hypothesis import given

from bench.sweep.catalog import load_model, names
from engines.transformer.params.describe import described
from engines.transformer.params.fusion import Fusion, input_parts, output_parts
from engines.weights.random import Tensor, hashed_uniform, prompt, tensors, values


@given(
    st.lists(st.tuples(st.integers(1, 6), st.data()), min_size=1, max_size=3),
)
def test_a_slice_is_the_slice_of_the_whole(axes):
    shape = tuple(size for size, _ in axes)
    index = []
    for size, data in axes:
        start = data.draw(st.integers(0, size))
        index.append(slice(start, data.draw(st.integers(start, size))))
    tensor = Tensor("layers.0.q", shape, 1.0)
    assert np.array_equal(values(tensor, 3, index), values(tensor, 3)[tuple(index)])


def test_a_tensor_beyond_two_to_the_32_values_does_not_repeat():
    shape, width = (3, 1 << 32), slice(0, 64)
    rows = [hashed_uniform("huge", shape, 0, [slice(row, row + 1), width]) for row in range(3)]
    assert not np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[1], rows[2])
    assert np.array_equal(rows[0][0], hashed_uniform("huge", (64,), 0, [width]))


def test_values_made_in_parts_are_those_made_at_once(monkeypatch):
    tensor, index = Tensor("layers.0.q", (9, 5, 4), 0.5, 1.0), [slice(1, 8), slice(0, 4), slice(2, 4)]
    whole = values(tensor, 3, index)
    for at_once in (1, 17, 40):
        monkeypatch.setattr("engines.weights.random.BLOCK_VALUES", at_once)
        assert np.array_equal(values(tensor, 3, index), whole)
    assert values(tensor, 3, [slice(4, 4), slice(None), slice(None)]).shape == (0, 5, 4)


def test_values_have_their_mean_and_spread():
    drawn = values(Tensor("layers.0.wo", (1000, 1000), 0.25, 1.0), 0)
    assert drawn.dtype == np.float32
    assert drawn.mean() == pytest.approx(1.0, abs=4 * 0.25 / 1000)
    assert drawn.std() == pytest.approx(0.25, rel=0.01)
    # Uniform: nothing beyond √3 standard deviations, and neighbours do not know of each other.
    assert np.abs(drawn - 1).max() <= 0.25 * math.sqrt(3) * 1.0001
    flat = drawn.ravel() - 1
    for distance in (1, 1000):
        assert abs(np.corrcoef(flat[:-distance], flat[distance:])[0, 1]) < 0.005


def test_names_and_seeds_give_other_values():
    base = values(Tensor("a", (100,), 1.0), 0)
    assert np.array_equal(base, values(Tensor("a", (100,), 1.0), 0))
    assert not np.array_equal(base, values(Tensor("b", (100,), 1.0), 0))
    assert not np.array_equal(base, values(Tensor("a", (100,), 1.0), 1))


def test_a_known_value():
    # Stored rows name a seed: the values that it stands for must never change.
    assert values(Tensor("embedding", (4,), 1.0), 0).tolist() == pytest.approx(
        [-0.170985296, -1.378390908, -1.500070453, -0.957917332], abs=1e-6
    )


@pytest.mark.parametrize("name", names("model"))
def test_tensors_are_all_parameters_of_the_model(name):
    model = load_model(name)
    assert sum(math.prod(each.shape) for each in tensors(model).values()) == model.params


def test_a_prompt_begins_with_the_shorter_one_and_stays_in_the_vocabulary():
    model = MODELS["palm"]
    long = prompt(model, 300, 40, 0)
    assert np.array_equal(long[:2, :7], prompt(model, 2, 7, 0))
    assert long.min() >= 0
    assert long.max() < model.vocab_size
    assert len(np.unique(long)) == model.vocab_size
    assert len(np.unique(long, axis=0)) == 300


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 1, 4)])
def test_fusing_loses_nothing(model, shape):
    plan = plan_of(MODELS[model], shape, "ws_2d", "heads")
    fusion = Fusion(plan, 7)
    seen = 0
    for axis, parts in ((1, input_parts(plan)), (0, output_parts(plan))):
        for part in parts.values():
            every, chunks = slice(0, plan.model.d_model), slice(0, plan.chips)
            fused = fusion.inputs(part, 1, every, chunks) if axis else fusion.outputs(part, 1, chunks, every)
            for name, _ in part:
                tensor = fusion.canonical[f"layers.1.{name}"]
                back = unfuse(plan, fused, part, tensor, axis=axis)
                assert np.array_equal(back, values(tensor, 7)), name
                seen += 1
    # What reads the residual stream or joins it: matrices out of latent vectors stay as they are.
    tensors = (*plan.model.attention.tensors, *plan.model.ffn.tensors)
    stream = [each for each in tensors if each.fan_in and (each.shape[0] == plan.model.d_model or each.joins_residual)]
    assert seen == len(stream)


def test_the_scale_of_scores_is_in_the_queries_and_nowhere_else():
    def filled(vector, **formats):
        whole = described(plan_of(MODELS["gpt"], (1, 2, 1), "ws_2d", "heads", **formats), 3)
        each = getattr(whole.layers[0].attn.inputs, vector)
        return each.fill(tuple(slice(0, size) for size in each.shape))

    # Heads of 8; two chunks of 2 heads: 16 columns each of q, k and v.
    factor = 1 / np.log(2) / np.sqrt(8)
    plan = plan_of(MODELS["gpt"], (1, 2, 1), "ws_2d", "heads")
    fusion, parts = Fusion(plan, 3), input_parts(plan)["attn"]
    plain = fusion.inputs(parts, 1, slice(0, 32), slice(0, 2))
    stored = filled("values")[1].reshape(32, 2, 48)
    np.testing.assert_allclose(stored[..., :16], plain[..., :16] * factor, rtol=1e-6)
    assert np.array_equal(stored[..., 16:], plain[..., 16:])
    bias, plain_bias = filled("bias")[1], fusion.input_bias(parts, 1, slice(0, 2))
    np.testing.assert_allclose(bias[:, :16], plain_bias[:, :16] * factor, rtol=1e-6)
    assert np.array_equal(bias[:, 16:], plain_bias[:, 16:])
    scale = filled("scale", weight_dtype="int8")[1]
    np.testing.assert_allclose(scale[:, :16], np.abs(plain[..., :16]).max(axis=0) * factor / 127, rtol=1e-6)
    np.testing.assert_allclose(scale[:, 16:], np.abs(plain[..., 16:]).max(axis=0) / 127, rtol=1e-6)

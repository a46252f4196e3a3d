"""What a pruned model computes, which parts stay, and what its points cost."""

from dataclasses import replace

import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.points import point
from hypothesis import given
from hypothesis import strategies as st

from bench.rows.metrics import derive
from engines.analytic.engine import AnalyticEngine
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.pruning import as_run, head_groups, pruned_model, pruning_of
from engines.transformer.activation_scores import by_activation
from engines.transformer.reference import reference_logits
from engines.weights.pruned.scores import by_magnitude
from engines.weights.pruned.source import PrunedWeights, two_of_four
from engines.weights.random import prompt, tensors, values

EXPERTS = small_model(
    block="serial",
    norm="rmsnorm",
    norms_per_layer=2,
    num_experts=4,
    experts_per_token=2,
    expert_d_ff=24,
    shared_expert_d_ff=16,
    dense_layers=1,
)
LATENT = small_model(
    block="serial", norm="rmsnorm", norms_per_layer=2, num_kv_heads=4, head_dim=12, rotary_dim=4, kv_latent_dim=16,
    value_head_dim=8,
)  # fmt: skip
CASES = {**MODELS, "experts": EXPERTS, "latent": LATENT}


class Zeroed:
    """The whole model's weights with the output rows of what is pruned set to 0: it then adds nothing."""

    def __init__(self, pruned: PrunedWeights):
        self.pruned = pruned

    def read(self, tensor, index):
        found = np.array(values(self.pruned._whole_specs[tensor.name], 0))
        if tensor.name.startswith("layers."):
            _, number, short = tensor.name.split(".", 2)
            number = int(number)
            gone = number not in self.pruned.layers
            if gone and short.split(".")[-1] in ("o", "wo", "o_bias", "wo_bias"):
                found[...] = 0
            elif not gone and short == "o":
                units = found.reshape(head_groups(self.pruned.whole), -1)
                units[np.setdiff1d(np.arange(len(units)), self.pruned.heads(number))] = 0
            elif not gone and short.endswith("wo"):
                kept = self.pruned.columns(number, short.removesuffix("wo"))
                for rows, stays in zip(found, kept, strict=True) if found.ndim == 3 else [(found, kept)]:
                    rows[np.setdiff1d(np.arange(len(rows)), stays)] = 0
        return found.reshape(tensor.shape)[tuple(index)]


def pruned(model, text, by="magnitude"):
    if by == "magnitude":
        return PrunedWeights(model, text, 0, lambda number: by_magnitude(model, 0, number))
    return PrunedWeights(model, text, 0, by_activation(model, 0, prompt(model, 2, 6, 1)).__getitem__)


@pytest.mark.thorough(every=4)
@pytest.mark.parametrize("by", ["magnitude", "activation"])
@pytest.mark.parametrize("name", ["palm", "gpt", "llama", "experts", "latent"])
@pytest.mark.parametrize("text", ["heads:0.5", "columns:0.3", "layers:0.5", "heads:0.5+columns:0.25"])
def test_what_is_left_is_the_whole_model_without_what_goes(name, text, by):
    model = CASES[name]
    if "layers" in text and name == "experts":
        with pytest.raises(Unsupported, match="layers of several kinds"):
            pruned_model(model, text)
        return
    weights, tokens = pruned(model, text, by), prompt(model, 2, 5, 3)
    ours = reference_logits(weights.model, tokens, [0, 4], weights)
    theirs = reference_logits(model, tokens, [0, 4], Zeroed(weights))
    whole = reference_logits(model, tokens, [0, 4], 0)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    assert np.abs(ours - whole).max() > 0.01 * np.abs(whole).max()


def test_the_least_parts_go():
    model = MODELS["llama"]
    scores = by_magnitude(model, 0, 1)
    weights = pruned(model, "heads:0.5+columns:0.25")
    assert set(weights.heads(1)) == set(np.argsort(scores.heads)[1:])
    assert set(weights.columns(1, "")) == set(np.argsort(scores.columns[""])[16:])
    gate, up, wo = (np.array(values(weights._whole_specs[f"layers.1.{name}"], 0)) for name in ("gate", "up", "wo"))
    by_hand = (gate[:, 5] ** 2).sum() + (up[:, 5] ** 2).sum() + (wo[5] ** 2).sum()
    assert scores.columns[""][5] == pytest.approx(by_hand, rel=1e-6)
    assert np.array_equal(weights._made("layers.1.up"), up[:, weights.columns(1, "")])


def test_what_no_activation_reaches_goes_first():
    """A head of no values and a column of no input add nothing to any text."""
    model = MODELS["llama"]

    class Silent:
        def read(self, tensor, index):
            found = np.array(values(replace_shape(tensor, model), 0))
            if tensor.name == "layers.0.v":
                found[:, 1] = 0
            if tensor.name == "layers.0.up":
                found[:, 7] = 0
            return found.reshape(tensor.shape)[tuple(index)]

    scores = by_activation(model, Silent(), prompt(model, 2, 6, 1))[0]
    assert scores.heads[1] == 0 < scores.heads[0]
    assert scores.columns[""][7] == 0
    assert (np.delete(scores.columns[""], 7) > 0).all()


def replace_shape(tensor, model):
    return tensors(model)[tensor.name]


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=23), st.integers(1, 3))
def test_two_of_every_four_inputs_stay(column, outputs):
    matrix = np.stack([np.roll(column, each) for each in range(outputs)], axis=1).astype(np.float32)
    found = two_of_four(matrix, (0,))
    for before, after in zip(matrix.T, found.T, strict=True):
        for start in range(0, len(before), 4):
            ours, theirs = after[start : start + 4], before[start : start + 4]
            stays = ours != 0
            assert np.array_equal(ours[stays], theirs[stays])
            assert stays.sum() <= -(-len(theirs) // 2)
            size = -(-len(theirs) // 2)
            assert np.sort(np.abs(ours))[::-1][:size].tolist() == np.sort(np.abs(theirs))[::-1][:size].tolist()


def test_heads_of_the_output_matrix_are_inputs_of_one_column():
    weights = pruned(MODELS["palm"], "2:4")
    matrix = weights._made("layers.0.o").reshape(-1, 32)
    assert ((matrix.reshape(-1, 4, 32) != 0).sum(1) == 2).all()
    assert np.array_equal(
        weights._made("layers.0.attn_norm.scale"), values(weights._specs["layers.0.attn_norm.scale"], 0)
    )


@pytest.mark.parametrize(
    ("name", "text", "sizes"),
    [
        ("palm", "heads:0.5", {"num_heads": 2, "num_kv_heads": 1}),
        ("llama", "heads:0.5", {"num_heads": 3, "num_kv_heads": 1}),
        ("gpt", "columns:0.5+layers:0.5", {"d_ff": 32, "num_layers": 1}),
        ("gpt", "heads:.9", {"num_heads": 1, "num_kv_heads": 1}),
        ("experts", "columns:0.5", {"d_ff": 32, "expert_d_ff": 12, "shared_expert_d_ff": 8}),
    ],
)
def test_sizes_that_are_left(name, text, sizes):
    model = pruned_model(CASES[name], text)
    assert {key: getattr(model, key) for key in sizes} == sizes
    assert model.mfu_params == model.active_params


@pytest.mark.parametrize(
    "text", ["heads", "heads:0", "heads:1", "rows:0.5", "columns:0.5+columns:0.2", "2:4+2:4", "", "0.5"]
)
def test_what_says_nothing_is_refused(text):
    with pytest.raises(InvalidRequest, match=r"pruning=.*is not known; write heads:F"):
        pruning_of(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("heads:0.1", "leaves out none of the 2 heads of model=.* use heads:0.5 or more"),
        ("layers:0.2+columns:0.5", "leaves out none of the 2 layers of model=.* use layers:0.5 or more"),
        ("columns:0.001", "leaves out none of the 64 columns"),
    ],
)
def test_a_share_that_leaves_out_nothing_is_refused(text, sentence):
    """Its row would be told as that of a pruned model, and be the whole one."""
    with pytest.raises(InvalidRequest, match=sentence):
        pruned_model(CASES["llama"], text)


def test_two_of_four_needs_groups_of_four():
    with pytest.raises(InvalidRequest, match=r"pruning=columns:0.3\+2:4: needs groups of four inputs, and d_ff = 45"):
        pruned_model(CASES["llama"], "columns:0.3+2:4")
    with pytest.raises(InvalidRequest, match="d_model = 30 of model=small is no multiple of 4"):
        pruned_model(small_model(d_model=30), "2:4")


@pytest.mark.parametrize("text", ["heads:0.5", "columns:0.5", "layers:0.5", "heads:0.5+columns:0.25+layers:0.5"])
def test_every_engine_counts_the_parameters_that_are_left(text):
    """The arrays that jax and torch load, the count that rows and MFU have, and the closed form's bytes."""
    asked = decode(text, hw="tpu-v4", num_chips=1, weight_dtype="bfloat16", model="bytes-1.8m")
    model = as_run(asked).model
    sizes = {name: int(np.prod(spec.shape)) for name, spec in tensors(model).items()}
    loaded = sum(sizes.values())
    assert loaded == model.params == model.published_params < asked.model.params
    [found] = AnalyticEngine().estimate([asked])
    assert found.facts.weights_bytes == 2 * sum(size for name, size in sizes.items() if "norm" not in name)


def test_a_point_is_pruned_once_and_its_fingerprint_tells():
    asked = decode("columns:0.5")
    run = as_run(asked)
    assert (run.model.d_ff, run.pruning) == (asked.model.d_ff // 2, "none")
    assert as_run(run) is run
    sparse = as_run(decode("2:4"))
    assert as_run(sparse) == sparse
    assert asked.fingerprint("") != decode("none").fingerprint("")
    assert decode("none").axes()["pruning"] is None
    assert asked.axes()["pruning"] == "columns:0.5"


def decode(pruning, **changes):
    keys = {"hw": "h100-80gb", "num_chips": 8, "batch_size": 16, "weight_dtype": "bfloat16", **changes}
    keys = {"model": "llama-3-70b", **keys}
    return point(engine="analytic", phase="decode", input_len=1024, output_len=32, pruning=pruning, **keys)


def test_predictions_are_of_what_is_left():
    texts = ("none", "columns:0.5", "layers:0.5", "2:4")
    whole, columns, layers, sparse = AnalyticEngine().estimate([decode(text) for text in texts])
    by_hand = AnalyticEngine().estimate(
        [replace(decode("none"), model=replace(decode("none").model, num_layers=40, mfu_params=35e9))]
    )
    assert layers.latency_s == pytest.approx(by_hand[0].latency_s)
    assert layers.latency_s < columns.latency_s < whole.latency_s
    # Half of 2 bytes, and two bits for each of the two weights that stay.
    assert decode("2:4").weight_bytes == 1.125
    assert sparse.facts.details["two_of_four"].startswith("sparse tensor cores: half of the bytes")
    assert "two_of_four" not in whole.facts.details
    assert 0.5 < sparse.facts.weights_bytes / whole.facts.weights_bytes < 0.65
    assert sparse.latency_s < whole.latency_s


def test_a_tpu_multiplies_zeros_as_it_does_other_weights():
    keys = {"hw": "tpu-v5e", "num_chips": 16, "weight_dtype": "int8"}
    whole, sparse = AnalyticEngine().estimate([decode("none", **keys), decode("2:4", **keys)])
    assert sparse.latency_s == whole.latency_s
    assert "hw=tpu-v5e has no sparse tensor cores" in sparse.facts.details["two_of_four"]


@pytest.mark.parametrize(("text", "share"), [("none", 1.0), ("layers:0.5", 0.5), ("2:4", 0.5)])
def test_mfu_counts_what_is_multiplied(text, share):
    asked = decode(text)
    head = asked.model.head_params
    tables = 2 * head
    found = derive(asked, latency_s=1.0, peak_flops_per_s=1e15)["mfu"]
    flops = 2 * 16 * 32 * (share * (asked.model.mfu_params - tables) + tables)
    assert found == pytest.approx(flops / 8 / 1e15, rel=0.01)

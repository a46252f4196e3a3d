"""Speculative decoding of small models: what plain decoding would have made, in every layout."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from builders.models import MODELS, small_model
from builders.plans import mesh_of, plan_of
from partitioned_case import run
from scipy import stats

from engines.core.errors import Unsupported
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.options import GREEDY, Sampling
from engines.transformer.params.quantize import is_quantized
from engines.transformer.programs import load_parameters, make_decode, make_prefill
from engines.transformer.speculation.first_layers import first_layers
from engines.transformer.speculation.options import Speculation
from engines.transformer.speculation.programs import make_speculative_decode
from engines.transformer.speculation.propose import Both
from engines.weights.random import prompt

TIME, STEPS, COUNT = 5, 9, 3


@functools.cache
def plain(model):
    plan = replace(plan_of(MODELS[model]), cache_len=TIME + STEPS)
    mesh = mesh_of((1, 1, 1))
    weights, cache = load_parameters(plan, mesh, 0), make_cache(plan, mesh)
    tokens = prompt(plan.model, plan.batch_size, TIME, 0)
    first, _, cache = run(make_prefill(plan, mesh), weights, cache, tokens)
    made, scores, _ = run(make_decode(plan, mesh, STEPS), weights, cache, first, np.int32(TIME))
    return np.asarray(first), np.asarray(made), np.asarray(scores)


def speculative(plan, draft, how, sampling=GREEDY, steps=STEPS):
    """(tokens [steps, batch], logits, turns, judged, kept) behind a prompt and the first token of plain decoding."""
    plan = replace(plan, cache_len=TIME + steps + how.count)
    mesh, tokens = mesh_of(plan.mesh_shape), prompt(plan.model, plan.batch_size, TIME, 0)
    weights, caches = [], []
    for each in (plan, None if draft is None else replace(draft, cache_len=plan.cache_len)):
        if each is not None:
            weights.append(load_parameters(each, mesh, 0))
            first, _, cache = run(make_prefill(each, mesh), weights[-1], make_cache(each, mesh), tokens)
            caches.append((first, cache))
    draft = None if draft is None else replace(draft, cache_len=plan.cache_len)
    program = make_speculative_decode(plan, draft, mesh, how, steps, sampling)
    both = Both(*weights), Both(*(cache for _, cache in caches))
    made, scores, _, count = run(program, *both, caches[0][0], tokens)
    return np.asarray(made), np.asarray(scores), *(np.asarray(each) for each in count)


@pytest.mark.parametrize(
    ("model", "shape", "ffn_layout", "attn_sharding", "way"),
    [
        ("palm", (1, 1, 1), "ws_1d", "heads", "draft"),
        ("palm", (2, 2, 1), "ws_2d", "batch", "self"),
        ("gpt", (1, 1, 1), "ws_1d", "heads", "ngram"),
        ("llama", (1, 2, 1), "ws_1d", "heads", "self"),
        pytest.param("llama", (2, 2, 2), "wg_xyz", "batch", "draft", marks=pytest.mark.slow),
        pytest.param("gpt", (2, 2, 2), "ws_2d", "heads", "draft", marks=pytest.mark.slow),
        pytest.param("falcon", (1, 2, 2), "wg_x", "heads", "ngram", marks=pytest.mark.slow),
    ],
)
@pytest.mark.thorough(every=3)
def test_greedy_output_is_the_models_own_token_for_token(model, shape, ffn_layout, attn_sharding, way):
    _, expected, scores = plain(model)
    plan = plan_of(MODELS[model], shape, ffn_layout, attn_sharding)
    draft = replace(plan, model=replace(plan.model, num_layers=1)) if way == "draft" else None
    made, again, turns, judged, kept = speculative(plan, draft, Speculation(way=way, count=COUNT, layers=1))
    assert np.array_equal(made, expected)
    size = plan.model.vocab_size
    assert np.abs(again[..., :size] - scores[..., :size]).max() < 1e-4
    assert (turns >= -(-STEPS // (COUNT + 1))).all()
    assert (turns <= STEPS).all()
    assert (kept <= judged).all()
    assert (kept + turns >= STEPS).all()
    assert kept.sum() > 0


def test_a_draft_that_is_the_model_is_always_right():
    plan = plan_of(MODELS["palm"])
    made, _, turns, judged, kept = speculative(plan, plan, Speculation(way="draft", count=COUNT))
    assert np.array_equal(made, plain("palm")[1])
    assert np.array_equal(judged, kept)
    assert set(turns) == {-(-STEPS // (COUNT + 1))}


def test_sampled_output_has_the_distribution_of_the_model():
    # 4,096 sequences of one prompt: the pair of the first two tokens, against plain decoding's by chi-square. Of both
    # temperature and top-k, and of turns of which some tokens are rejected.
    batch, steps, vocab = 4096, 2, 5
    model = small_model(vocab_size=vocab)
    plan = replace(plan_of(model), batch_size=batch, cache_len=TIME + steps)
    mesh, sampling = mesh_of((1, 1, 1)), Sampling(temperature=0.7, top_k=3, seed=11)
    tokens = np.repeat(prompt(model, 1, TIME, 0), batch, axis=0)
    weights = load_parameters(plan, mesh, 0)
    assert not is_quantized(plan)

    def drawn(seed, way):
        here = replace(plan, cache_len=TIME + steps + COUNT)
        cache = make_cache(here, mesh)
        _, _, cache = run(make_prefill(here, mesh), weights, cache, tokens)
        first = np.zeros(batch, np.int32)
        drawing = replace(sampling, seed=seed)
        if way is None:
            made, *_ = run(make_decode(here, mesh, steps, drawing), weights, cache, first, np.int32(TIME))
        else:
            how = Speculation(way=way, count=COUNT, layers=1)
            program = make_speculative_decode(here, None, mesh, how, steps, drawing)
            made, _, _, count = run(program, Both(weights), Both(cache), first, tokens)
            _, judged, kept = (np.asarray(each).sum() for each in count)
            assert 0.2 < kept / judged < 0.9
        made = np.asarray(made)
        return np.bincount(made[0] * vocab + made[1], minlength=vocab * vocab)

    expected = drawn(1, None) + drawn(2, None)
    for way in ("self", "ngram"):
        table = np.stack([expected, drawn(3, way)])
        assert stats.chi2_contingency(table[:, table.sum(axis=0) >= 10]).pvalue > 1e-3


def test_layers_of_several_kinds_are_refused_where_few_are_stacked_in_another_order():
    windows = small_model(num_layers=6, attention_window=4, global_every=3)
    assert first_layers(plan_of(windows), 3).model.num_layers == 3
    with pytest.raises(Unsupported, match="draft_layers=4"):
        first_layers(plan_of(windows), 4)

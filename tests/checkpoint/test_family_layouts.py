"""Each family of checkpoints in every layout: logits of steps and prompts equal transformers', and so do caches."""

import functools
import json

import jax
import numpy as np
import pytest
from builders.plans import mesh_of
from checkpoint_cases import EVERY, logits, saved
from compiling import plainly
from layout_matrix import BATCH, NO_PROMPT, TIME, covering

from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_decode, make_prefill
from engines.weights.checkpoint.describe import described_by, model_of
from engines.weights.checkpoint.source import Checkpoint

pytestmark = pytest.mark.slow(seconds=4)

FAMILIES = (
    "llama 3.1", "llama yarn", "llama dynamic", "falcon-7b", "falcon-40b", "gpt-j", "neox", "gpt2", "starcoder", "phi",
    "stablelm with biases", "glm", "helium", "seed-oss", "qwen2", "qwen3", "mistral with window", "gemma", "gemma 2",
    "gemma 3", "cohere", "granite", "bloom", "opt", "phi3 with window", "phi3 long", "starcoder2 with window",
    "mixtral", "qwen2-moe", "qwen3-moe", "gpt-oss", "deepseek-v2", "deepseek-v3",
)  # fmt: skip
"""Of each family the case with most to it; windows are of 3 tokens, so that the text is four windows long."""
EVERYWHERE = ("falcon-7b", "neox", "gpt2", "qwen3", "gemma 2", "bloom", "gpt-oss", "deepseek-v3")
"""Those that between them have every kind of layer: each is in every layout that it admits."""
NEAR = 1e-4
OFTEN = 5
"""Of each family's cases one in so many is run, in turn, and with --thorough all: a case takes a second of a core."""


@functools.cache
def matrix():
    import transformers

    def model(name):
        family, keys = EVERY[name]
        config = getattr(transformers, f"{family}{'Text' * (family == 'Gemma3')}Config")(**keys)
        head = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
        return described_by(json.loads(config.to_json_string()) | {"architectures": [f"{family}{head}"]})

    return covering({name: model(name) for name in FAMILIES}, EVERYWHERE)


def test_any_two_choices_that_go_together_are_together_in_some_case():
    found = matrix()
    missed = found.possible - found.met
    assert len(missed) < 0.03 * len(found.possible)
    assert not any("model" in dict(pair) for pair in missed)


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=pytest.mark.xdist_group(f"families-{at % 2}")) for at, each in enumerate(FAMILIES)],
)
def test_every_layout_equals_transformers(name, tmp_path, pytestconfig):
    theirs = saved(name, tmp_path)
    model = model_of(tmp_path)
    checkpoint = Checkpoint(tmp_path, model)

    @functools.cache
    def wanted(tokens):
        return logits(theirs, np.frombuffer(tokens, np.int32).reshape(BATCH, TIME)).transpose(1, 0, 2)

    first = np.random.default_rng(0).integers(0, model.vocab_size, BATCH).astype(np.int32)
    one_chip = Plan(
        model=model, mesh_shape=(1, 1, 1), ffn_layout="ws_1d", attn_sharding="heads", batch_size=BATCH,
        cache_len=TIME,
    )  # fmt: skip
    found = {("one chip",): errors(one_chip, False, checkpoint, first, wanted)}
    cases = matrix().cases[name]
    if not pytestconfig.getoption("thorough"):
        cases = cases[FAMILIES.index(name) % min(OFTEN, len(cases)) :: OFTEN]
    for case in cases:
        prompted = case.chosen["prompt"] != NO_PROMPT
        found[tuple(case.chosen.values())] = errors(case.plan, prompted, checkpoint, first, wanted)
    assert {case: each for case, each in found.items() if max(each) > NEAR} == {}


def errors(plan, prompted, checkpoint, first, wanted):
    """Of the logits of steps; where the text is then read as a prompt also of its logits, and between both caches."""
    mesh = mesh_of(plan.mesh_shape)
    weights = load_parameters(plan, mesh, checkpoint)
    generated, steps, stepped = run(make_decode(plan, mesh, TIME), weights, make_cache(plan, mesh), first, np.int32(0))
    fed = np.concatenate([first[:, None], np.asarray(generated).T[:, :-1]], axis=1)
    expected = wanted(np.ascontiguousarray(fed).tobytes())
    size = np.abs(expected).max()
    assert size > 0.5
    found = [np.abs(np.asarray(steps)[..., : plan.model.vocab_size] - expected[-len(steps) :]).max() / size]
    if prompted:
        _, scores, whole = run(make_prefill(plan, mesh), weights, make_cache(plan, mesh), fed)
        found.append(np.abs(np.asarray(scores)[:, : plan.model.vocab_size] - expected[-1]).max() / size)
        for a, b in zip(jax.tree.leaves(stepped), jax.tree.leaves(whole), strict=True):
            assert np.abs(np.asarray(a)).max() > 0.5
            found.append(np.abs(np.asarray(a) - np.asarray(b)).max())
    return tuple(float(each) for each in found)


def run(program, *arguments):
    return program.lower(*arguments).compile(plainly())(*arguments)

"""Decoding from a checkpoint of each dense family: logits of steps equal those of transformers over the same tokens."""

import jax
import numpy as np
import pytest
from builders.plans import mesh_of
from checkpoint_cases import logits, saved
from compiling import plainly

from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.options import PrefillOptions
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_decode, make_prefill
from engines.weights.checkpoint.describe import model_of
from engines.weights.checkpoint.source import Checkpoint

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]

TIME, STEPS = 5, 10  # three windows of 3 and one step more
SHAPE = (2, 2, 2)
LAYOUTS = {
    "one chip": {"mesh_shape": (1, 1, 1), "ffn_layout": "ws_1d", "attn_sharding": "heads"},
    "2D": {"mesh_shape": SHAPE, "ffn_layout": "ws_2d", "attn_sharding": "batch"},
    "1D": {"mesh_shape": SHAPE, "ffn_layout": "ws_1d", "attn_sharding": "heads", "unrolled": True},
    "gathered x": {"mesh_shape": SHAPE, "ffn_layout": "wg_x", "attn_sharding": "batch"},
    "gathered xy": {"mesh_shape": SHAPE, "ffn_layout": "wg_xy", "attn_sharding": "heads"},
    "gathered": {"mesh_shape": SHAPE, "ffn_layout": "wg_xyz", "attn_sharding": "batch"},
    "overlapped": {"mesh_shape": SHAPE, "ffn_layout": "ws_2d", "attn_sharding": "batch", "collectives": "latency"},
    "the compiler's": {"mesh_shape": SHAPE, "ffn_layout": "ws_2d", "attn_sharding": "batch", "partitioner": "gspmd"},
    "in chunks": {
        "mesh_shape": SHAPE, "ffn_layout": "ws_2d", "attn_sharding": "heads", "prefill": PrefillOptions(chunk=2),
    },
}  # fmt: skip
FAMILIES = {
    "llama 3.1": "gathered",
    "llama yarn": "1D",
    "llama dynamic": "2D",
    "qwen2": "gathered xy",
    "qwen3": "the compiler's",
    "mistral with window": "2D",
    "gemma 2": "overlapped",
    "gemma 3": "in chunks",
    "phi3 with window": "gathered x",
    "phi3 long": "1D",
    "falcon-40b": "overlapped",
    "bloom": "2D",
    "opt": "gathered",
    "gpt-j": "in chunks",
    "neox": "the compiler's",
    "granite": "1D",
    "cohere": "gathered x",
}


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """Name → a family's model of transformers and the folder of its checkpoint."""
    return {name: (saved(name, folder), folder) for name in FAMILIES if (folder := tmp_path_factory.mktemp("family"))}


@pytest.mark.parametrize(
    ("name", "layout"), [(name, each) for name, own in FAMILIES.items() for each in ("one chip", own)]
)
def test_steps_equal_transformers(name, layout, families):
    theirs, folder = families[name]
    model = model_of(folder)
    plan = Plan(model=model, batch_size=8, cache_len=TIME + STEPS, **LAYOUTS[layout])
    plan.check()
    mesh = mesh_of(plan.mesh_shape)
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, (8, TIME)).astype(np.int32)
    weights, cache = load_parameters(plan, mesh, Checkpoint(folder, model)), make_cache(plan, mesh)
    first, scores, cache = _run(make_prefill(plan, mesh), weights, cache, tokens)
    generated, steps, _ = _run(make_decode(plan, mesh, STEPS), weights, cache, first, np.int32(TIME))
    fed = np.concatenate([tokens, np.asarray(first)[:, None], np.asarray(generated).T[:, :-1]], axis=1)
    wanted = logits(theirs, fed).transpose(1, 0, 2)
    kept = len(steps)
    output = np.concatenate([scores[None], steps])[..., : model.vocab_size]
    wanted = np.concatenate([wanted[TIME - 1 : TIME], wanted[-kept:]])
    assert np.abs(wanted).max() > 0.5
    assert np.abs(output - wanted).max() < 1e-4 * np.abs(wanted).max()


def _run(program, *arguments):
    return jax.block_until_ready(program.lower(*arguments).compile(plainly())(*arguments))

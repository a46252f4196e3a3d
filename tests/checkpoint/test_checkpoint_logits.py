"""The engine's logits from a checkpoint equal those of transformers."""

import jax
import numpy as np
import pytest
from checkpoint_cases import CASES, CHIEF, TIME, expected
from jax.sharding import AxisType

from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import load_parameters, make_prefill
from engines.transformer.reference import reference_logits
from engines.weights.checkpoint.describe import model_of
from engines.weights.checkpoint.source import Checkpoint

pytestmark = [pytest.mark.usefixtures("plainly_compiled"), pytest.mark.slow]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


def difference(output, wanted):
    """max|output − wanted| / max|wanted|."""
    assert np.abs(wanted).max() > 0.5
    return float(np.abs(output - wanted).max() / np.abs(wanted).max())


def prefill(checkpoint, model, tokens, shape, ffn_layout, **formats):
    """Logits of the last of ``tokens`` by the partitioned model."""
    plan = Plan(
        model=model,
        mesh_shape=shape,
        ffn_layout=ffn_layout,
        attn_sharding="heads" if shape == (1, 1, 1) else "batch",
        batch_size=len(tokens),
        cache_len=tokens.shape[1],
        **formats,
    )
    plan.check()
    devices = jax.devices("cpu")[: plan.chips]
    mesh = jax.make_mesh(shape, ("x", "y", "z"), devices=devices, axis_types=(AxisType.Auto,) * 3)
    weights = load_parameters(plan, mesh, checkpoint)
    _, scores, _ = make_prefill(plan, mesh)(weights, make_cache(plan, mesh), tokens)
    return np.asarray(scores)[:, : model.vocab_size]


@pytest.mark.parametrize("name", CASES)
def test_the_reference_equals_transformers_at_every_position(name, folders):
    tokens, wanted = expected(name, folders / name)
    model = model_of(folders / name)
    output = reference_logits(model, tokens, list(range(TIME)), Checkpoint(folders / name, model))
    assert difference(output.transpose(1, 0, 2), wanted) < 1e-5


ONE, CUT, GATHERED = ((1, 1, 1), "ws_1d"), ((2, 2, 2), "ws_2d"), ((2, 2, 2), "wg_xyz")


@pytest.mark.parametrize(
    ("name", "shape", "ffn_layout"),
    [
        *((name, *each) for name in CHIEF for each in (ONE, CUT, GATHERED)),
        ("qwen2", *CUT),  # biases of q, k and v alone
        *(pytest.param(name, *CUT, marks=pytest.mark.slow) for name in CASES if name not in (*CHIEF, "qwen2")),
    ],
)
def test_every_family_equals_transformers(name, shape, ffn_layout, folders):
    tokens, wanted = expected(name, folders / name)
    model = model_of(folders / name)
    output = prefill(Checkpoint(folders / name, model), model, tokens, shape, ffn_layout)
    assert difference(output, wanted[:, -1]) < 1e-4

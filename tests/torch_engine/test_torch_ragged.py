"""Sequences of different lengths: packed and padded have the same logits, those of the reference."""

import dataclasses

import numpy as np
import pytest
from builders.models import MODELS as SHAPES
from builders.models import moe_model
from forked_ranks import ForkedRanks
from processes import PATIENCE_S
from torch_cases import ARCHITECTURES, changed, logits, point, run

from engines.core.errors import Unsupported
from engines.torch.engine import TorchEngine
from engines.torch.job import Job
from engines.torch.program import TorchProgram
from engines.torch.rank_group import InProcess
from engines.torch.result import verification
from engines.weights.lengths import draw_lengths

pytestmark = pytest.mark.usefixtures("small_torch_peaks")

MODELS = {
    **ARCHITECTURES,
    "alibi": changed(position="alibi"),
    "window": changed(attention_window=4, num_kv_heads=4),
    "latent": SHAPES["deepseek"],
    "experts": moe_model(shared_expert_d_ff=32),
    "sinks": changed(attention_sinks=True, attention_window=3, attn_softcap=20.0),
}


def job(model, padding, **changes):
    one = point(padding=padding, **{"batch_size": 5, "input_len": 11, "output_len": 4, "lengths": "uniform", **changes})
    return Job(point=dataclasses.replace(one, model=MODELS[model]), seed=2, decode="eager", threads=1)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.thorough(every=4)
def test_packed_is_padded_is_the_reference(model):
    found = {padding: run(InProcess(job(model, padding))) for padding in ("padded", "packed")}
    for padding, outputs in found.items():
        assert verification(job(model, padding), outputs, 1e-5).ok
    padded, packed = (logits(found[each]) for each in ("padded", "packed"))
    assert np.abs(padded - packed).max() < 1e-5 * np.abs(padded).max()
    assert np.array_equal(found["padded"].generated, found["packed"].generated)


@pytest.mark.parametrize("model", ["llama", "experts"])
def test_groups_of_sequences_gather_rows_of_different_lengths_to_experts_and_dense_layers(model):
    spread = job(model, "packed", tensor=2, batch_size=4, data_parallel=2)
    first, second = draw_lengths("uniform", 4, 11, 2).reshape(2, 2).sum(axis=1)
    assert first != second
    group = ForkedRanks(spread, PATIENCE_S)
    try:
        assert verification(spread, run(group), 1e-5).ok
    finally:
        group.close()


@pytest.mark.parametrize(
    ("padding", "changes"),
    [("padded", {"micro_batches": 3}), ("packed", {}), ("packed", {"sequence_parallel": "norms", "micro_batches": 4})],
)
def test_ranks_and_stages_give_the_logits_of_the_reference(padding, changes):
    spread = job("llama", padding, tensor=2, pipeline=2, **changes)
    group = ForkedRanks(spread, PATIENCE_S)
    try:
        assert verification(spread, run(group), 1e-5).ok
    finally:
        group.close()


@pytest.mark.parametrize("phase", ["prefill", "decode", "generate"])
def test_rates_count_real_tokens(phase):
    one = job("palm", "packed", phase=phase)
    facts = TorchProgram(one, InProcess(one), 1e-5, {}).facts()
    real = int(draw_lengths("uniform", 5, 11, 2).sum())
    assert real < 5 * 11
    generated = 0 if phase == "prefill" else 5 * 4
    assert facts.processed_tokens == generated + (0 if phase == "decode" else real)
    # k and v of three layers, one head of 32 elements: the real tokens and those to come, and no padding.
    assert facts.kv_cache_bytes == 2 * 3 * 32 * 4 * (real + generated)


def test_what_is_refused():
    with pytest.raises(Unsupported, match=r"engine.decode=compile: every step of padding=packed"):
        TorchEngine(decode="compile").job(point(lengths="trace", padding="packed"))

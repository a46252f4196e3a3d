"""Pruned models in PyTorch: the same parts stay as in JAX, and rows have the same quality."""

from dataclasses import replace

import numpy as np
import pytest
from builders.models import MODELS, moe_model, small_model
from builders.points import point
from forked_ranks import ForkedRanks
from processes import PATIENCE_S
from torch_cases import logits, run

from engines.core.errors import InvalidRequest, Unsupported
from engines.jax import quality as in_jax
from engines.jax.settings import Settings
from engines.torch.engine import TorchEngine
from engines.torch.quality import quality, scores_of
from engines.torch.rank_group import InProcess
from engines.torch.result import verification
from engines.transformer.activation_scores import by_activation
from engines.weights.checkpoint.write import write_checkpoint
from engines.weights.random import prompt, tensors, values

pytestmark = pytest.mark.usefixtures("small_torch_peaks")
EXPERTS = moe_model(shared_expert_d_ff=16)
CASES = {**MODELS, "experts": EXPERTS}
BYTES = small_model(block="serial", norm="rmsnorm", norms_per_layer=2, num_kv_heads=2, vocab_size=256, d_ff=64)


def asked(model, pruning, **keys):
    given = {"num_chips": 1, "phase": "generate", "batch_size": 2, "input_len": 5, "output_len": 3}
    return point(model, "cpu", engine="torch", weight_dtype="float32", pruning=pruning, **{**given, **keys})


def loaded(model, pruning, *, settings=None, **keys):
    """The job of a point with what decides which parts stay, as the engine gives it to its ranks."""
    job = TorchEngine(**(settings or {})).job(asked(model, pruning, **keys))
    return replace(job, scores=scores_of(job), threads=1)


@pytest.mark.parametrize("name", ["experts", "palm", "gpt", "deepseek"])
@pytest.mark.thorough(every=2)
def test_a_text_uses_the_parts_that_it_uses_in_jax(name):
    from engines.torch.activation_scores import by_activation as in_torch

    model = CASES[name]
    tokens = prompt(model, 2, 6, 1)
    for ours, theirs in zip(in_torch(model, 0, tokens), by_activation(model, 0, tokens), strict=True):
        assert np.allclose(ours.heads, theirs.heads, rtol=1e-3)
        assert ours.columns.keys() == theirs.columns.keys()
        for lead, scores in ours.columns.items():
            assert np.allclose(scores, theirs.columns[lead], rtol=1e-3, atol=1e-9)
        assert ours.layer == pytest.approx(theirs.layer, abs=1e-5)


@pytest.mark.parametrize(("pruning", "by"), [("heads:0.5+columns:0.5", "activation"), ("layers:0.5+2:4", "magnitude")])
def test_what_is_left_runs_and_its_quality_is_that_of_jax(pruning, by):
    job = loaded(BYTES, pruning, settings={"pruning_by": by})
    assert job.point.model.params < BYTES.params
    group = InProcess(job)
    checked = verification(job, run(group), 1e-5)
    group.close()
    assert checked.ok
    settings = Settings(pruning_by=by)
    theirs = in_jax.quality_of(job.asked, job.point, settings, 0, in_jax.pruned_source(job.asked, settings, 0))
    assert checked.quality_kl == pytest.approx(theirs.kl, rel=1e-3)
    assert theirs.kl > 0
    assert checked.quality_agreement == pytest.approx(theirs.agreement, abs=0.002)
    assert checked.quality_perplexity is theirs.perplexity is None


def test_half_of_the_inputs_of_a_column_are_zeros_and_no_shape_changes():
    job = loaded(BYTES, "2:4", offload="host")
    assert job.point.model.d_ff == BYTES.d_ff
    assert job.scores is None
    group = InProcess(job)
    matrix = job.source().read(tensors(BYTES)["layers.0.wo"], [slice(None)] * 2)
    assert ((matrix.reshape(-1, 4, BYTES.d_model) != 0).sum(axis=1) == 2).all()
    assert verification(job, run(group), 1e-5).ok
    group.close()


def test_every_rank_and_every_place_has_the_same_parts():
    pruning = "heads:0.5+columns:0.5"
    alone = InProcess(loaded(BYTES, pruning))
    spread = loaded(BYTES, pruning, num_chips=2, tensor_parallel=2, offload="nvme", offload_kv="host")
    group = ForkedRanks(spread, PATIENCE_S)
    try:
        here, there = logits(run(alone)), logits(run(group))
    finally:
        group.close()
    alone.close()
    assert np.abs(here - there).max() < 1e-5 * np.abs(here).max()


def test_a_checkpoint_against_its_teacher_on_a_text(tmp_path):
    pytest.importorskip("safetensors")
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(range(32, 120)) * 3)
    for name, seed in (("teacher", 0), ("stranger", 1)):
        write_checkpoint(tmp_path / name, BYTES, {each: values(spec, seed) for each, spec in tensors(BYTES).items()})

    def of(checkpoint, **settings):
        engine = TorchEngine(checkpoint=str(tmp_path / checkpoint), text=str(text), **settings)
        job = engine.job(asked(BYTES, "none"))
        return quality(job), engine.options

    same, options = of("teacher", teacher=str(tmp_path / "teacher"))
    assert (same.kl, same.agreement) == (pytest.approx(0, abs=1e-12), 1.0)
    stranger, _ = of("stranger", teacher=str(tmp_path / "teacher"))
    assert stranger.kl > 0.001
    assert stranger.agreement < 1
    alone, _ = of("teacher")
    assert alone.perplexity == same.perplexity
    assert alone.kl is None
    assert set(options) == {"checkpoint", "teacher", "text"}


def test_what_cannot_be_left_out_is_refused(tmp_path):
    with pytest.raises(Unsupported, match="layers of several kinds"):
        TorchEngine().job(asked(replace(EXPERTS, dense_layers=1), "layers:0.5"))
    with pytest.raises(InvalidRequest, match=r"engine.pruning_by=size"):
        TorchEngine(pruning_by="size")
    (tmp_path / "text").write_text("the text")
    settings = {"pruning_by": "activation", **dict.fromkeys(("text", "calibration_text"), str(tmp_path / "text"))}
    with pytest.raises(InvalidRequest, match="quality is measured on"):
        loaded(BYTES, "heads:0.5", settings=settings)

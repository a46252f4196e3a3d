"""The torch engine runs the same checkpoints."""

import numpy as np
import pytest
import torch
from builders.points import point as build_point
from checkpoint_cases import CHIEF, TODAY, logits, rewritten, saved

from engines.core.errors import InvalidRequest
from engines.torch.engine import TorchEngine
from engines.torch.reference import reference_logits
from engines.weights.checkpoint.describe import model_of
from engines.weights.checkpoint.identity import identity
from engines.weights.random import prompt

pytestmark = [pytest.mark.usefixtures("small_peaks", "small_torch_peaks"), pytest.mark.slow]


def point(folder, ranks):
    return build_point(
        model=model_of(folder),
        hw="cpu",
        engine="torch",
        phase="prefill",
        num_chips=ranks,
        tensor_parallel=ranks,
        batch_size=3,
        input_len=7,
        output_len=1,
        weight_dtype="float32",
    )


@pytest.mark.parametrize("name", [*CHIEF, "llama 3.1", "qwen2", *TODAY])
def test_its_reference_equals_transformers(name, tmp_path):
    model = saved(name, tmp_path)
    engine = TorchEngine(checkpoint=str(tmp_path))
    job = engine.job(point(tmp_path, 1))
    tokens = prompt(job.point.model, 3, 7, 0)
    output = reference_logits(job.point.model, torch.from_numpy(tokens).long(), [0, 6], job.source()).numpy()
    wanted = logits(model, tokens)[:, [0, 6]].transpose(1, 0, 2)
    assert np.abs(output - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize(
    ("name", "ranks"),
    [*((each, 1) for each in (*CHIEF, "qwen2")), pytest.param("falcon-40b", 2, marks=pytest.mark.slow)],
)
def test_what_is_timed_equals_the_reference(name, ranks, tmp_path):
    saved(name, tmp_path)
    program = TorchEngine(checkpoint=str(tmp_path)).prepare(point(tmp_path, ranks))
    checked = program.verify()
    assert checked.ok
    assert 0 < checked.max_relative_error < 1e-5
    assert program.facts().details["checkpoint"] == identity(tmp_path)
    program.close()


def test_a_bad_checkpoint_is_refused_before_there_is_a_rank(tmp_path):
    saved("gpt-j", tmp_path)
    asked = point(tmp_path, 2)
    rewritten(tmp_path, lambda held: held.pop("lm_head.bias"))
    with pytest.raises(InvalidRequest, match=r"has no tensor lm_head.bias \[61\]"):
        TorchEngine(checkpoint=str(tmp_path)).job(asked)
    with pytest.raises(InvalidRequest, match="is not a folder"):
        TorchEngine(checkpoint=str(tmp_path / "none"))

"""Layers that a rank has in host memory or in a file: the same logits, and the bytes of the closed form."""

from dataclasses import replace

import numpy as np
import pytest
from builders.points import point as build_point

pytest.importorskip("torch")

from bench.sweep.catalog import load_model
from engines.core.errors import Unsupported
from engines.offload.layer_file import padded_bytes
from engines.torch.engine import TorchEngine
from engines.weights.random import tensors

pytestmark = pytest.mark.usefixtures("small_torch_peaks")
STEPS = 2


def point(model="tiny", **keys):
    given = {"phase": "generate", "batch_size": 4, "input_len": 6, "output_len": STEPS, "weight_dtype": "float32"}
    return build_point(model, "cpu", engine="torch", **{"num_chips": 1, **given, **keys})


def outcome(asked, **settings):
    engine = TorchEngine(**settings)
    program = engine.prepare(asked)
    try:
        assert program.verify().ok
        (found,) = program.rank_group.call("outputs")
        facts = program.facts()
        return found["generated"], found["kept"], facts, engine.program_id(asked)
    finally:
        program.close()


@pytest.mark.parametrize("model", ["tiny", "tiny-gpt"])
@pytest.mark.thorough(every=2)
def test_offloaded_layers_give_the_logits_of_those_on_the_device(model, tmp_path):
    asked = point(model)
    tokens, logits, on_device, _ = outcome(asked)
    specs = tensors(load_model(model))
    layers = [
        4 * sum(int(np.prod(spec.shape)) for name, spec in specs.items() if name.startswith(f"layers.{number}."))
        for number in range(asked.model.num_layers)
    ]
    for offload in ("host", "nvme"):
        for _ in range(1 if offload == "host" else 2):  # the second finds the file of the first
            found, scores, facts, program_id = outcome(replace(asked, offload=offload), offload_dir=str(tmp_path))
        assert np.array_equal(found, tokens)
        assert np.allclose(scores, logits, rtol=0, atol=1e-6, equal_nan=True)
        assert facts.program_id == program_id != on_device.program_id
        run = facts.details["offload"]["decode"]
        assert run["copy_bytes"] == STEPS * sum(layers)
        if offload == "nvme":
            assert run["read_bytes"] == STEPS * sum(map(padded_bytes, layers))
        assert run["fetches"] == STEPS * len(layers)
        assert facts.weights_bytes < on_device.weights_bytes


@pytest.mark.slow(seconds=8)
@pytest.mark.thorough
def test_every_rank_streams_its_own_part():
    asked = point(num_chips=2, tensor_parallel=2, phase="decode", offload="nvme")
    program = TorchEngine().prepare(asked)
    try:
        assert program.verify().ok
        run = program.facts().details["offload"]["decode"]
        assert run["fetches"] == STEPS * asked.model.num_layers
    finally:
        program.close()


@pytest.mark.parametrize("key", ["offload", "offload_kv"])
def test_steps_that_come_from_the_host_are_not_compiled(key):
    with pytest.raises(Unsupported, match=f"engine.decode=compile: the layers of {key}=host"):
        TorchEngine(decode="compile").job(point(**{key: "host"}))

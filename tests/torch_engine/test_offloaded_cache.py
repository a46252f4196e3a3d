"""Keys and values that wait in host memory: the same logits, and the bytes of the closed form."""

from dataclasses import replace

import numpy as np
import pytest
from builders.models import MODELS as SHAPES
from forked_ranks import ForkedRanks
from processes import PATIENCE_S
from torch_cases import ARCHITECTURES, changed, logits, point, run

from engines.torch.engine import TorchEngine
from engines.torch.job import Job
from engines.torch.program import TorchProgram
from engines.torch.rank_group import InProcess
from engines.torch.result import verification
from engines.weights.lengths import draw_lengths

pytestmark = pytest.mark.usefixtures("small_torch_peaks")
STEPS, BATCH, PROMPT = 4, 5, 7
MODELS = {
    **ARCHITECTURES,
    "window": changed(attention_window=4, num_kv_heads=4),
    "chunked": changed(attention_window=4, window_kind="chunked"),
    "latent": SHAPES["deepseek"],
}


def job(model="palm", **keys):
    given = {"batch_size": BATCH, "input_len": PROMPT, "output_len": STEPS, "offload_kv": "host"}
    made = replace(point(**{**given, **keys}), model=MODELS[model])
    return Job(point=made, seed=2, decode="eager", threads=1)


def ran(asked):
    """The logits of a rank in this process, and what it streamed."""
    group = InProcess(asked)
    outputs = run(group)
    logs = group.rank.layers.logs
    group.close()
    return logits(outputs), logs


def on_device(asked):
    return replace(asked, point=replace(asked.point, offload="none", offload_kv="none"))


def a_place(model, layers=1):
    """Bytes of one position of one sequence in float32."""
    if model.kv_latent_dim is not None:
        return 4 * layers * (model.kv_latent_dim + model.rotated_dim)
    return 4 * layers * 2 * model.num_kv_heads * model.head_dim


@pytest.mark.parametrize("model", ["palm", "window", "chunked", "latent"])
@pytest.mark.parametrize("offload", ["none", "host"])
@pytest.mark.thorough(every=3)
def test_each_step_reads_what_is_cached_and_writes_its_own(model, offload):
    asked = job(model, offload=offload)
    found, logs = ran(asked)
    assert np.abs(found - ran(on_device(asked))[0]).max() <= 1e-6 * np.abs(found).max()
    one = asked.point.model
    wide = one.attention_window
    reads = [PROMPT + step for step in range(STEPS)]
    reads = {"window": [min(each, wide or 0) for each in reads], "chunked": [each % (wide or 1) for each in reads]}.get(
        model, reads
    )
    whole, kept = a_place(one, one.num_layers) * BATCH, PROMPT if wide is None else min(PROMPT, wide)
    assert logs["prefill"]["write_bytes"] == whole * kept
    assert logs["prefill"]["cache_copy_bytes"] == 0
    assert logs["decode"]["write_bytes"] == whole * STEPS
    assert logs["decode"]["cache_copy_bytes"] == whole * sum(reads)
    if offload == "none":
        assert logs["decode"]["copy_bytes"] == whole * sum(reads)
    else:
        assert logs["decode"]["copy_bytes"] > whole * sum(reads)
    assert logs["decode"]["fetches"] == STEPS * one.num_layers


@pytest.mark.parametrize(("model", "padding"), [("palm", "padded"), ("latent", "packed")])
def test_sequences_of_different_lengths(model, padding):
    """Padded, the longest one's places are read of all; packed, each sequence's own."""
    asked = job(model, lengths="uniform", padding=padding)
    found, logs = ran(asked)
    assert np.abs(found - ran(on_device(asked))[0]).max() <= 1e-6 * np.abs(found).max()
    lengths = draw_lengths("uniform", BATCH, PROMPT, asked.seed)
    one = a_place(asked.point.model, asked.point.model.num_layers)
    places = sum(lengths) if padding == "packed" else BATCH * max(lengths)
    assert logs["decode"]["cache_copy_bytes"] == one * sum(places + BATCH * step for step in range(STEPS))
    assert logs["decode"]["write_bytes"] == one * BATCH * STEPS
    assert logs["prefill"]["write_bytes"] == one * (sum(lengths) if padding == "packed" else BATCH * PROMPT)


def test_a_model_of_one_layer_waits_for_what_it_wrote():
    asked = job()
    asked = replace(asked, point=replace(asked.point, model=replace(MODELS["palm"], num_layers=1)))
    found, logs = ran(asked)
    assert np.abs(found - ran(on_device(asked))[0]).max() <= 1e-6 * np.abs(found).max()
    assert logs["decode"]["fetches_overlapped"] < STEPS


def test_stages_stream_their_own_layers_for_every_micro_batch():
    asked = job("llama", tensor=2, pipeline=2, micro_batches=3, offload="nvme")
    group = ForkedRanks(asked, PATIENCE_S)
    try:
        assert verification(asked, run(group), 1e-5).ok
        for each in group.call("facts"):
            layers = each["offload"]["decode"]["fetches"] // (3 * STEPS)
            assert layers in (1, 2)
            one = a_place(asked.point.model, layers) // 2
            assert each["offload"]["decode"]["write_bytes"] == one * BATCH * STEPS
    finally:
        group.close()


def test_a_row_tells_the_device_s_part_of_the_cache():
    facts = {}
    for asked in (job(), on_device(job())):
        program = TorchProgram(asked, InProcess(asked), 1e-5, {})
        assert program.verify().ok
        facts[asked.point.offload_kv] = program.facts()
        program.close()
    # Two of three layers' rooms.
    assert facts["host"].kv_cache_bytes == pytest.approx(facts["none"].kv_cache_bytes * 2 / 3, abs=4 * 256)
    assert facts["host"].details["offload"]["decode"]["write_bytes"] == a_place(MODELS["palm"], 3) * BATCH * STEPS
    assert facts["host"].program_id != facts["none"].program_id
    assert TorchEngine(seed=2).program_id(job().point) == facts["host"].program_id

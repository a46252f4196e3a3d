"""Layers that wait in host memory or in a file: the same tokens and logits, and the bytes of the closed form."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from builders.points import point as build_point

from bench.sweep.catalog import load_model
from engines.jax.engine import JaxEngine
from engines.jax.offload.store import layer_payload_bytes
from engines.offload.layer_file import padded_bytes
from engines.transformer.partition.resolve import plan_of

pytestmark = pytest.mark.usefixtures("plainly_prepared", "small_peaks")

STEPS = 2
point = partial(
    build_point,
    model=replace(load_model("tiny"), name="tiny+num_layers=3", num_layers=3),
    hw="cpu",
    engine="jax",
    phase="generate",
    batch_size=8,
    input_len=8,
    output_len=STEPS,
    weight_dtype="float32",
)
CASES = {
    "one device": {"num_chips": 1},
    "a ring of weights in groups of chips": {"num_chips": 8, "ffn_layout": "wg_xy", "attn_sharding": "batch"},
    "a preshuffled ring of activations, int8": {
        "num_chips": 4,
        "ffn_layout": "ws_2d",
        "collectives": "throughput",
        "weight_dtype": "int8",
        "act_dtype": "float32",
    },
}


def outcome(asked, **settings):
    """(tokens, logits, facts, program id before and after loading) of a point."""
    engine = JaxEngine(**settings)
    program = engine.prepare(asked)
    try:
        assert program.verify().ok
        facts = program.facts()
        return *(np.asarray(each) for each in program.decoded), facts, engine.program_id(asked)
    finally:
        program.close()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow(seconds=4)
@pytest.mark.thorough(every=3)
def test_offloaded_layers_give_the_tokens_and_logits_of_those_on_the_device(case, tmp_path):
    asked = point(**CASES[case])
    tokens, logits, on_device, _ = outcome(asked)
    plan = replace(plan_of(asked), unrolled=True)
    payloads = layer_payload_bytes(plan)
    for offload in ("host", "nvme") if asked.num_chips == 1 else ("nvme",):
        found, scores, facts, program_id = outcome(replace(asked, offload=offload), offload_dir=str(tmp_path))
        assert np.array_equal(found, tokens)
        finite = np.isfinite(logits)
        assert np.abs(scores[finite] - logits[finite]).max() <= 1e-5 * np.abs(logits[finite]).max()
        assert facts.program_id == program_id != on_device.program_id
        run = facts.details["offload"]["decode"]
        assert run["fetches"] == STEPS * len(payloads)
        # Every pass copies to each chip its part of each layer, of which two are there at once...
        layer = run["copy_bytes"] / STEPS / len(payloads) / asked.num_chips
        assert facts.weights_bytes == pytest.approx(on_device.weights_bytes - (len(payloads) - 2) * layer)
        # ...and reads from a file what is different of it.
        if offload == "nvme":
            assert run["read_bytes"] == STEPS * sum(padded_bytes(int(each)) for each in payloads)


def test_a_file_of_layers_is_written_once(tmp_path):
    asked = point(num_chips=1, phase="prefill", offload="nvme")
    written = []
    for _ in range(2):
        JaxEngine(offload_dir=str(tmp_path)).prepare(asked).close()
        written += [(each, each.stat().st_mtime_ns) for each in tmp_path.glob("*/layers.bin")]
    assert len(written) == 2
    assert written[0] == written[1]

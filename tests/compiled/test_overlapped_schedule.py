"""What the real TPU compiler makes of an interleaved block: what is sent goes beside products."""

import gzip
from dataclasses import replace

import pytest
from builders.points import point
from compiled_cases import ask, loop_of

from bench.sweep.catalog import load_model
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.schedule import read_schedule

pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")

LAYERS = 6


@pytest.mark.slow
def test_the_block_sends_beside_its_products_and_waits_less_than_plain(tmp_path):
    asked = point(
        model=replace(load_model("palm-62b"), num_layers=LAYERS), hw="tpu-v4", engine="compiled",
        phase="decode", num_chips=16, batch_size=128, input_len=248, output_len=8, ffn_layout="ws_2d",
        attn_sharding="batch",
    )  # fmt: skip
    answers = {}
    for collectives in ("plain", "latency"):
        folder = tmp_path / collectives
        answers[collectives], _ = ask(replace(asked, collectives=collectives), trace_dir=str(folder), keep_hlo=True)
    # Attention's beside the first matrix, sums of the first beside the second and of the second beside attention.
    assert sum(_products_beside(tmp_path / "latency")) >= 3
    assert _products_beside(tmp_path / "plain") == [], "plain collectives are left as the compiler has them"
    exposed = {name: each.facts.communication_s - each.facts.overlapped_s for name, each in answers.items()}
    assert exposed["latency"] < 0.8 * exposed["plain"]
    assert answers["latency"].latency_s < answers["plain"].latency_s


@pytest.mark.slow
@pytest.mark.parametrize(("num_chips", "beside"), [(16, True), (32, False)])
@pytest.mark.thorough
def test_a_slice_whose_compiler_refuses_all_to_alls_beside_products_waits_for_them(tmp_path, num_chips, beside):
    asked = point(
        model=replace(load_model("palm-8b"), num_layers=LAYERS), hw="tpu-v5e", engine="compiled",
        phase="decode", num_chips=num_chips, batch_size=32, input_len=120, output_len=8, ffn_layout="ws_2d",
        attn_sharding="batch", collectives="latency",
    )  # fmt: skip
    answer, _ = ask(asked, trace_dir=str(tmp_path), keep_hlo=True)
    assert answer.status == "ok", answer.error
    assert bool(_products_beside(tmp_path)) == beside


def _products_beside(folder):
    """For each all-to-all that starts in the loop over layers, whether a product runs before it is done."""
    (path,) = folder.glob("*.hlo.txt.gz")
    steps = loop_of(read_schedule(parse_module(gzip.decompress(path.read_bytes()).decode())), LAYERS)
    places = {step.name: place for place, step in enumerate(steps)}
    return [
        any(step.matmul for step in steps[places[done.starts] : place])
        for place, done in enumerate(steps)
        if done.opcode == "all-to-all-done"
    ]

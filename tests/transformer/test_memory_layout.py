"""Memory layouts: no program begins by copying the weights or the cache; an array in another layout is copied."""

import gzip
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from builders.plans import mesh_of
from builders.plans import plan_of as build_plan
from builders.points import point
from jax.experimental.layout import Format, Layout
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bench.sweep.catalog import load_model
from engines.compiled.engine import CompiledEngine
from engines.compiled.hlo.hbm_traffic import HBM
from engines.compiled.hlo.parser import parse_module
from engines.transformer.layers.kv_cache import abstract_cache
from engines.transformer.params.memory_layout import array_format, order_of, relayout
from engines.transformer.partition.kv_heads import folds_slots
from engines.transformer.programs import abstract_arguments, make_decode, make_prefill

COPIED_BYTES = 32e6
"""More than any vector, or one layer's new keys, and less than a tenth of the stacked weights or the cache."""


plan_of = partial(build_plan, shape=(2, 2, 2), ffn_layout="ws_2d", cache_len=4)


def test_other_devices_keep_their_own_order():
    mesh = mesh_of((1, 1, 1))
    assert array_format(mesh, P(), (1, 0)) == NamedSharding(mesh, P())


def test_an_array_is_moved_only_where_it_lies_otherwise():
    mesh = mesh_of((1, 1, 1))
    array = jax.device_put(np.arange(6, dtype=np.float32).reshape(2, 3), NamedSharding(mesh, P()))
    rows, columns = (Format(Layout(major_to_minor=order), NamedSharding(mesh, P())) for order in ((0, 1), (1, 0)))
    assert relayout(array, rows) is array
    assert relayout(array, NamedSharding(mesh, P())) is array
    turned = relayout(array, columns)
    assert order_of(turned.format) == (1, 0)
    assert turned.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_chip_s_slots_are_sequences_of_a_folded_cache():
    # Each of tiny-gpt's 8 heads has its own key/value head. Batch 4 is cut over y and z, heads over x.
    plan = plan_of("tiny-gpt", attn_sharding="batch", batch_size=4)
    assert folds_slots(plan)
    assert abstract_cache(plan, mesh_of((2, 2, 2)))[0]["k"].shape[1:4] == (4 * 8, 1, 4)
    apart = plan_of("tiny-gpt", attn_sharding="batch", batch_size=4, partitioner="gspmd")
    assert not folds_slots(apart)
    assert abstract_cache(apart, mesh_of((2, 2, 2)))[0]["k"].shape[1:4] == (4, 8, 4)
    assert not folds_slots(plan_of("tiny", attn_sharding="batch"))  # one key/value head: nothing to fold


@pytest.mark.parametrize("model", ["tiny", "tiny-gpt"])
def test_a_whole_prompt_does_not_read_the_cache_that_it_writes(model):
    # Read back, the cache would be laid out for that, and copied into what decoding reads.
    plan, mesh = plan_of(model, attn_sharding="heads", cache_len=6), mesh_of((2, 2, 2))
    arguments = abstract_arguments(plan, mesh, 5)
    held = {each.sharding.shard_shape(each.shape) for each in abstract_cache(plan, mesh)[0].values()}
    types = tuple(f"tensor<{'x'.join(map(str, shape))}xf32>" for shape in held)

    def readings(lowered):
        lines = [line for line in lowered.as_text().splitlines() if "stablehlo.dynamic_slice" in line]
        return sum(f": ({each}" in line for line in lines for each in types)

    assert readings(make_prefill(plan, mesh).lower(*arguments["prefill"])) == 0
    assert readings(make_decode(plan, mesh, 1).lower(*arguments["decode"]))


@pytest.mark.thorough(every=2)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "phase", "changes"),
    [
        # A chip's 10272 fused columns are no multiple of a tile.
        ("palm-540b", "decode", {"num_chips": 64, "attn_sharding": "batch"}),
        ("palm-540b", "decode", {"num_chips": 64, "attn_sharding": "batch", "weight_dtype": "int8"}),
        # Multihead: its cache lies as decoding reads it.
        ("gpt-6.7b", "decode", {"num_chips": 8, "attn_sharding": "heads"}),
        ("gpt-6.7b", "decode", {"num_chips": 8, "attn_sharding": "heads", "kv_dtype": "int8"}),
        # Grouped queries, each chip with all heads of its sequences: MaxText's point on v6e, at fewer layers.
        ("llama-2-70b", "decode", {"hw": "tpu-v6e", "num_chips": 8, "ffn_layout": "ws_1d", "attn_sharding": "batch"}),
        (
            "llama-2-70b",
            "decode",
            {"hw": "tpu-v6e", "num_chips": 8, "ffn_layout": "ws_1d", "attn_sharding": "batch", "kv_dtype": "int8"},
        ),
        # Prefill reads the same weights.
        ("palm-540b", "prefill", {"num_chips": 64, "attn_sharding": "batch"}),
        # Each input of the feed-forward a matrix of its own.
        ("palm-540b", "decode", {"num_chips": 64, "attn_sharding": "batch", "collectives": "latency"}),
    ],
)
def test_no_program_begins_with_a_copy(model, phase, changes, tmp_path):
    pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")
    shallow = replace(load_model(model), num_layers=8)
    asked = {"hw": "tpu-v4", "ffn_layout": "ws_2d", "batch_size": 64, "input_len": 128, "output_len": 16, **changes}
    asked = point(model=shallow, engine="compiled", phase=phase, **asked)
    engine = CompiledEngine(cache_dir="", trace_dir=str(tmp_path), keep_hlo=True)
    (answer,) = engine.estimate([asked])
    assert answer.status == "ok", answer.error
    (path,) = tmp_path.glob("*.hlo.txt.gz")
    module = parse_module(gzip.decompress(path.read_bytes()).decode())
    copies = [each for each in module[module.entry].instructions if each.opcode == "copy"]
    assert not [each for each in copies if each.bytes > COPIED_BYTES and each.shapes[0].space == HBM]

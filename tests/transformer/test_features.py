"""What layers of today's dense models have: logits against the reference, caches as they roll."""

import jax
import numpy as np
import pytest
from builders.models import small_model
from builders.plans import mesh_of, plan_of
from partitioned_case import errors, run

from engines.transformer.layers.kv_cache import abstract_cache, make_cache
from engines.transformer.options import PrefillOptions
from engines.transformer.programs import load_parameters, make_decode, make_prefill
from engines.weights.random import prompt

pytestmark = pytest.mark.usefixtures("plainly_prepared")

SERIAL = {"block": "serial", "norms_per_layer": 2, "norm": "rmsnorm", "num_kv_heads": 2}
FEATURES = {
    "window": small_model(**SERIAL, attention_window=3),
    "alternating": small_model(
        **SERIAL, attention_window=3, global_every=2, num_layers=5, rotary_window_base=100.0, rotary_factor=2.0
    ),
    "chunks": small_model(**SERIAL, attention_window=3, window_kind="chunked", global_every=3, num_layers=4),
    "sinks and caps": small_model(
        **SERIAL,
        attention_sinks=True,
        attn_softcap=2.0,
        logit_softcap=1.5,
        attn_scale=0.2,
        qk_norm=True,
        activation="swiglu_clamped",
        attn_bias=True,
        attn_output_bias=False,
        ffn_bias=True,
    ),
    "alibi": small_model(
        **{**SERIAL, "num_kv_heads": 6},
        num_heads=6,
        position="alibi",
        embedding_norm=True,
        norm_bias=True,
        activation="relu",
    ),
    "norms after": small_model(**SERIAL, norm_position="after", qk_norm=True, residual_scale=0.5),
    "norms around": small_model(
        **{**SERIAL, "norms_per_layer": 4, "num_kv_heads": 1},
        num_heads=3,
        norm_position="both",
        activation="geglu",
        attention_window=4,
        global_every=2,
        attention_sinks=True,
        embedding_scale=5.7,
        residual_scale=0.5,
        logit_scale=2.0,
    ),
    "parallel": small_model(
        attention_window=3, attention_sinks=True, qk_norm=True, residual_scale=0.5, position="alibi"
    ),
    "yarn": small_model(
        **SERIAL,
        rotary_scaling="yarn",
        rotary_factor=4.0,
        rotary_original_positions=4,
        rotary_high_factor=32.0,
        rotary_attention_factor=1.2,
    ),
    "dynamic": small_model(**SERIAL, rotary_scaling="dynamic", rotary_factor=4.0, rotary_original_positions=4),
}
SHAPE = (2, 2, 2)
BLOCKWISE = {"attention": "blockwise", "block": 2}
LAYOUTS = {
    "one chip": {},
    "unrolled": {"unrolled": True},
    "2D over the batch": {"shape": SHAPE, "ffn_layout": "ws_2d", "attn_sharding": "batch"},
    "1D over heads": {"shape": SHAPE, "ffn_layout": "ws_1d"},
    "weights gathered": {"shape": SHAPE, "ffn_layout": "wg_xyz", "attn_sharding": "batch"},
    "overlapped": {"shape": SHAPE, "ffn_layout": "ws_2d", "attn_sharding": "batch", "collectives": "throughput"},
    "all-reduce": {"shape": SHAPE, "ffn_layout": "ws_1d", "collectives": "all_reduce", "unrolled": True},
    "the compiler's": {"shape": SHAPE, "ffn_layout": "ws_2d", "partitioner": "gspmd"},
    "in chunks": {"prefill": PrefillOptions(chunk=3)},
    "in chunks and blocks": {"shape": SHAPE, "prefill": PrefillOptions(chunk=2, **BLOCKWISE)},
    "after a prefix": {
        "shape": SHAPE,
        "ffn_layout": "ws_2d",
        "attn_sharding": "batch",
        "prefill": PrefillOptions(prefix=4),
    },
    "after a prefix of one chip": {"prefill": PrefillOptions(prefix=4, **BLOCKWISE)},
    "in blocks": {"prefill": PrefillOptions(**BLOCKWISE)},
}
TIME, STEPS = 7, 10
CHIEF = [
    ("window", "2D over the batch"),
    ("window", "in chunks and blocks"),
    ("alternating", "one chip"),
    ("alternating", "1D over heads"),
    ("alternating", "after a prefix"),
    ("chunks", "unrolled"),
    ("chunks", "in chunks"),
    ("sinks and caps", "2D over the batch"),
    ("sinks and caps", "in blocks"),
    ("alibi", "2D over the batch"),
    ("alibi", "after a prefix of one chip"),
    ("norms after", "weights gathered"),
    ("norms around", "the compiler's"),
    ("norms around", "all-reduce"),
    ("parallel", "overlapped"),
    ("yarn", "1D over heads"),
    ("dynamic", "after a prefix"),
]
AFTER_A_PREFIX = [(model, "after a prefix") for model in FEATURES if (model, "after a prefix") not in CHIEF]


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize(
    ("model", "layout"), [*CHIEF, *(pytest.param(*each, marks=pytest.mark.slow) for each in AFTER_A_PREFIX)]
)
def test_features_in_ways_to_read_and_run(model, layout):
    """Every layout, with what families of checkpoints have of it, is in ``test_family_layouts``."""
    plan = plan_of(FEATURES[model], cache_len=TIME + STEPS, **LAYOUTS[layout])
    assert max(errors(plan, TIME, STEPS)) < 1e-5


@pytest.mark.parametrize("formats", [{"kv_dtype": "int8"}, {"weight_dtype": "int8", "kv_dtype": "float8_e4m3"}])
def test_a_quantised_rolling_cache_is_as_near_as_a_whole_one(formats):
    near = {"int8": 0.03, "float8_e4m3": 0.1}[formats["kv_dtype"]]
    plan = plan_of(FEATURES["alternating"], SHAPE, "ws_2d", "batch", cache_len=TIME + STEPS, **formats)
    assert max(errors(plan, TIME, STEPS)) < near


@pytest.mark.parametrize("layout", ["one chip", "2D over the batch"])
def test_the_cache_after_three_windows_of_steps_is_that_of_reading_it_all_at_once(layout):
    model, window = FEATURES["alternating"], 3
    time, steps = 4, 3 * window
    plan = plan_of(model, cache_len=time + steps + 1, **LAYOUTS[layout])
    mesh = mesh_of(plan.mesh_shape)
    weights, tokens = load_parameters(plan, mesh, 0), prompt(model, plan.batch_size, time, 0)
    first, _, cache = run(make_prefill(plan, mesh), weights, make_cache(plan, mesh), tokens)
    generated, _, cache = run(make_decode(plan, mesh, steps), weights, cache, first, np.int32(time))
    fed = np.concatenate([tokens, np.asarray(first)[:, None], np.asarray(generated).T[:, :-1]], axis=1)
    _, _, at_once = run(make_prefill(plan, mesh), weights, make_cache(plan, mesh), fed)
    lengths = set()
    for stepped, whole in zip(jax.tree.leaves(cache), jax.tree.leaves(at_once), strict=True):
        lengths.add(stepped.shape[3])
        assert np.abs(np.asarray(whole)).max() > 0.5
        assert np.abs(np.asarray(stepped) - np.asarray(whole)).max() < 1e-5
    assert lengths == {window, time + steps + 1}


def test_layers_with_a_window_hold_that_much_of_a_long_text():
    model = small_model(**SERIAL, attention_window=32, global_every=6, num_layers=62)
    mesh = mesh_of((1, 1, 1))

    def elements(model):
        cache = abstract_cache(plan_of(model, cache_len=1024), mesh)
        return sum(each.size for each in jax.tree.leaves(cache))

    whole = elements(small_model(**SERIAL, num_layers=62))
    assert elements(model) / whole == (10 * 1024 + 52 * 32) / (62 * 1024)

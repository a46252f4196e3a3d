"""Runs in a peer's Python: the decode step of an installed MaxText, as its inference engine compiles it."""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from absent import bytes_on_a_device, main

os.environ.setdefault("DECOUPLE_GCLOUD", "TRUE")  # no cloud is asked for anything


def build(asked: dict[str, Any], devices: list[Any], layers: int) -> tuple[Any, Any, dict[str, int]]:
    """``MaxEngine``'s generate step, over the mesh that MaxText makes of the slice."""
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from flax.linen import partitioning
    from jax.sharding import NamedSharding
    from maxtext.inference.maxengine import maxengine
    from maxtext.utils import maxtext_utils, sharding

    config, batch = _config(asked, layers), asked["batch_size"]
    # What its step returns is a class of another package, which does not pass through a jitted function's outputs here.
    maxengine.engine_api.ResultTokens = lambda **found: {key: each for key, each in found.items() if _is_array(each)}
    engine = maxengine.MaxEngine(config, devices=devices)
    mesh = engine._mesh
    _, parameters, _, rest = nnx.split(engine.model_ar, nnx.Param, nnx.Cache, ...)
    with partitioning.axis_rules(config.logical_axis_rules):
        placed = sharding.nnx_construct_named_sharding(parameters, mesh)
    weights = jax.tree.map(lambda of, where: _shape(of, getattr(where, "value", where)), parameters, placed)
    engine._nnx_rest_state = jax.tree.map(_zeros, rest)
    named = maxtext_utils.get_kv_cache_annotations_nnx(engine.model_ar, config, mesh)
    engine.kv_cache_shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), named)
    cache = nnx.to_pure_dict(nnx.split(engine.model_ar, nnx.Cache, ...)[1])
    cache = jax.tree.map(_shape, cache, engine.kv_cache_shardings)
    state = {
        "logits": jax.ShapeDtypeStruct((batch, 1, config.vocab_size), jnp.float32),
        "cache": cache,
        "token_logp": jax.ShapeDtypeStruct((batch, 1), jnp.float32),
        **{name: jax.ShapeDtypeStruct((batch, 1), jnp.int32) for name in ("next_pos", "generated_tokens", "tokens")},
    }
    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    step = maxengine.MaxEngine._generate_jit
    held = {"weights": bytes_on_a_device(weights), "cache": bytes_on_a_device(cache)}
    return step.lower(engine, weights, state, rng=key, algorithm="greedy"), mesh, held


def _config(asked: dict[str, Any], layers: int) -> Any:
    import maxtext
    from maxtext.configs import pyconfig

    sizes, target = asked["model"], asked["target"]
    quantised = {"quantize_kvcache": "true", "kv_quant_dtype": "int8"} if asked["kv_dtype"] == "int8" else {}
    if asked["weight_dtype"] == "int8":
        quantised |= {"quantization": "int8", "checkpoint_is_quantized": "true"}
    settings = {
        "model_name": "default",
        "decoder_block": "llama2",
        "base_emb_dim": sizes["d_model"],
        "base_mlp_dim": sizes["d_ff"],
        "base_num_query_heads": sizes["num_heads"],
        "base_num_kv_heads": sizes["num_kv_heads"],
        "base_num_decoder_layers": layers,
        "head_dim": sizes["head_dim"],
        "vocab_size": sizes["vocab_size"],
        "rope_max_timescale": int(sizes["rotary_base"]),
        "mlp_activations": "['silu','linear']",
        "enable_dropout": "false",
        "logits_via_embedding": "false",
        "internal_compile": "true",
        "internal_compile_num_devices": target["devices"],
        "compile_topology": target["topology_name"],
        "compile_topology_num_slices": 1,
        "per_device_batch_size": asked["batch_size"] / target["devices"],
        "max_target_length": asked["cache_len"],
        "max_prefill_predict_length": asked["input_len"],
        "attention": "dot_product",
        "scan_layers": "false",
        "weight_dtype": "bfloat16",
        "dtype": "bfloat16",
        "allow_split_physical_axes": "true",
        "ici_tensor_parallelism": asked["tensor_parallel"],
        "ici_fsdp_parallelism": 1,
        "ici_data_parallelism": target["devices"] // asked["tensor_parallel"],
        "skip_jax_distributed_system": "true",
        "enable_checkpointing": "false",
        **quantised,
    }
    base = Path(str(maxtext.__file__)).parent / "configs" / "inference" / "inference.yml"
    return pyconfig.initialize(
        ["", str(base), *(f"{key}={each}" for key, each in settings.items()), *asked["arguments"]]
    )


def _shape(of: Any, where: Any) -> Any:
    import jax

    return jax.ShapeDtypeStruct(of.shape, of.dtype, sharding=where)


def _zeros(of: Any) -> Any:
    """What is no parameter: counters and random keys."""
    import jax
    import jax.numpy as jnp

    return jax.random.key(0) if jnp.issubdtype(of.dtype, jax.dtypes.prng_key) else jnp.zeros(of.shape, of.dtype)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape")


if __name__ == "__main__":
    main(build, ("jax", "jaxlib", "libtpu", "maxtext"))

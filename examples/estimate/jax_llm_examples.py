"""Decode and prefill of jax-llm-examples (https://github.com/jax-ml/jax-llm-examples), as they are in their repository.

Their folders and their libraries (etils, tensorstore) go on the path:

    shardbench estimate function=jax_llm_examples:llama_decode hw=tpu-v5e mesh=[x:1,y:8,z:2] axis_types=explicit \
        path=[examples/estimate,../jax-llm-examples/llama3] settings=[num_layers=4,batch=16]
"""

import dataclasses
import importlib

import jax
import jax.numpy as jnp


def _shapes(model, kind, config, *sizes):
    abstract, shardings = kind.abstract(config, *sizes), kind.shardings(config, *sizes)
    return jax.tree.map(
        lambda info, sharding: jax.ShapeDtypeStruct(info.shape, info.dtype, sharding=sharding),
        abstract,
        shardings,
        is_leaf=model.is_param,
    )


def _tokens(model, config, batch, length):
    spec = model.logical_to_physical(("batch", "sequence"), config.rules)
    return jax.ShapeDtypeStruct((batch, length), jnp.int32, sharding=jax.sharding.NamedSharding(config.mesh, spec))


def _decode(model, config, batch, *more):
    weights, cache = _shapes(model, model.Weights, config), _shapes(model, model.KVCache, config, batch, *more)
    return model.decode_step, (_tokens(model, config, batch, 1), weights, cache, config)


def _prefill(model, config, batch, length, *more):
    weights, cache = _shapes(model, model.Weights, config), _shapes(model, model.KVCache, config, batch, *more)
    tokens = _tokens(model, config, batch, length)
    return jax.jit(model.forward, donate_argnums=(4,)), (tokens, tokens, weights, config, cache)


def _llama(mesh, size, num_layers, context, **changes):
    model, configs = importlib.import_module("llama3_jax.model"), importlib.import_module("llama3_jax.configs")
    config = getattr(configs, f"LLAMA3_{size.upper()}")
    changes = {"num_layers": num_layers or config.num_layers, "max_seq_len": context, "mesh": mesh} | changes
    return model, dataclasses.replace(config, **changes)


def llama_decode(mesh, size="70b", num_layers=None, batch=16, context=512):
    """One step of Llama 3, int8 weights and cache."""
    model, config = _llama(mesh, size, num_layers, context)
    return _decode(model, config, batch)


def llama_prefill(mesh, size="70b", num_layers=None, batch=1, length=2048):
    """A prompt of Llama 3, with its attention kernel."""
    model, config = _llama(mesh, size, num_layers, length, use_prefill_attn_kernel=True)
    return _prefill(model, config, batch, length)


def _qwen(mesh, num_layers, context, **changes):
    model, configs = importlib.import_module("qwen3_jax.model"), importlib.import_module("qwen3_jax.configs")
    config = configs.QWEN3_30B_A3B
    changes = {"num_layers": num_layers or config.num_layers, "max_seq_len": context, "mesh": mesh} | changes
    return model, dataclasses.replace(config, **changes)


def qwen_decode(mesh, num_layers=None, batch=16, context=512):
    """One step of Qwen 3 30B-A3B, a mixture of experts."""
    model, config = _qwen(mesh, num_layers, context)
    return _decode(model, config, batch, context)


def qwen_prefill(mesh, num_layers=None, batch=1, length=2048):
    """A prompt of Qwen 3 30B-A3B."""
    model, config = _qwen(mesh, num_layers, length, ep_strategy="prefill")
    return _prefill(model, config, batch, length, length)

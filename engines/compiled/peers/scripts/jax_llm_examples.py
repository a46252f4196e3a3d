"""Runs in a peer's Python: the Llama of jax-llm-examples, from the folder that it lies in, as it is."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from absent import Refused, bytes_on_a_device, main, mesh_of


def build(asked: dict[str, Any], devices: list[Any], layers: int) -> tuple[Any, Any, dict[str, int]]:
    """Their ``decode_step``, or the ``forward`` that their ``prefill`` runs, over their mesh x, y, z."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    sys.path.insert(0, str(Path(asked["folder"]) / "llama3"))
    from llama3_jax import model as peer

    sizes, batch = asked["model"], asked["batch_size"]
    mesh = mesh_of(asked["mesh"], ("x", "y", "z"), devices)
    config = peer.Config(
        embed=sizes["d_model"],
        ffw_size=sizes["d_ff"],
        q_heads=sizes["num_heads"],
        kv_heads=sizes["num_kv_heads"],
        num_layers=layers,
        head_dim=sizes["head_dim"],
        vocab_size=sizes["vocab_size"],
        max_seq_len=asked["cache_len"],
        causal=True,
        use_prefill_attn_kernel=asked["kernels"],
        use_decode_attn_kernel=asked["kernels"],
        rope_theta=sizes["rotary_base"],
        mesh=mesh,
        quant_layer=asked["weight_dtype"] == "int8",
        quant_cache=asked["kv_dtype"] == "int8",
    )

    def shapes(kind: Any, *arguments: Any) -> Any:
        return jax.tree.map(
            lambda info, sharding: jax.ShapeDtypeStruct(info.shape, info.dtype, sharding=sharding),
            kind.abstract(config, *arguments),
            kind.shardings(config, *arguments),
            is_leaf=peer.is_param,
        )

    def tokens(length: int, spec: Any) -> Any:
        return jax.ShapeDtypeStruct((batch, length), jnp.int32, sharding=NamedSharding(mesh, spec))

    with jax.sharding.set_mesh(mesh):
        weights, cache = shapes(peer.Weights), shapes(peer.KVCache, batch)
        held = {"weights": bytes_on_a_device(weights), "cache": bytes_on_a_device(cache)}
        if asked["phase"] == "decode":
            return peer.decode_step.lower(tokens(1, P(None, None)), weights, cache, config), mesh, held
        length = asked["input_len"]
        if length & (length - 1):
            raise Refused(f"input_len={length}: jax-llm-examples pads prompts to a power of 2; use one")
        prompt = tokens(length, peer.logical_to_physical(("batch", "sequence"), config.rules))
        logits = NamedSharding(mesh, P(peer.BATCH_AXIS_NAME, None, peer.TENSOR_AXIS_NAME))
        placed = (logits, peer.KVCache.shardings(config, batch))
        forward = jax.jit(peer.forward, donate_argnums=(4,), out_shardings=placed)
        return forward.lower(prompt, prompt, weights, config, cache), mesh, held


if __name__ == "__main__":
    main(build, ("jax", "jaxlib", "libtpu"))

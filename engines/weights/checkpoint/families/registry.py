"""The families that are supported, by the ``model_type`` of their configs."""

from collections.abc import Mapping
from typing import Final

from engines.weights.checkpoint.families import (
    falcon,
    glm,
    gpt2,
    gpt_bigcode,
    gptj,
    llama,
    llama_like,
    neox,
    phi,
    phi3,
    stablelm,
    starcoder2,
)
from engines.weights.checkpoint.families.family import Family

GPT_2: Final = "transformer"

FAMILIES: Final[Mapping[str, Family]] = {
    "falcon": Family(
        ("FalconForCausalLM",),
        falcon.fields,
        falcon.locations,
        inner="transformer",
        own_code=("configuration_falcon", "modeling_falcon"),
    ),
    "glm": Family(("GlmForCausalLM",), glm.fields, glm.locations),
    "gpt2": Family(("GPT2LMHeadModel",), gpt2.fields, gpt2.locations, inner=GPT_2),
    "gpt_bigcode": Family(("GPTBigCodeForCausalLM",), gpt_bigcode.fields, gpt_bigcode.locations, inner=GPT_2),
    "gpt_neox": Family(("GPTNeoXForCausalLM",), neox.fields, neox.locations),
    "gptj": Family(("GPTJForCausalLM",), gptj.fields, gptj.locations, inner=GPT_2),
    "helium": Family(("HeliumForCausalLM",), llama_like.helium, llama.locations),
    "llama": Family(("LlamaForCausalLM", "LLaMAForCausalLM"), llama.fields, llama.locations),
    "mistral": Family(("MistralForCausalLM",), llama_like.mistral, llama.locations),
    "phi": Family(("PhiForCausalLM",), phi.fields, phi.locations, own_code=("configuration_phi", "modeling_phi")),
    "phi3": Family(("Phi3ForCausalLM",), phi3.fields, phi3.locations, own_code=("configuration_phi3", "modeling_phi3")),
    "qwen2": Family(("Qwen2ForCausalLM",), llama_like.qwen2, llama.locations),
    "seed_oss": Family(("SeedOssForCausalLM",), llama_like.seed_oss, llama.locations),
    "stablelm": Family(
        ("StableLmForCausalLM",),
        stablelm.fields,
        llama.locations,
        own_code=("configuration_stablelm", "modeling_stablelm"),
    ),
    "starcoder2": Family(("Starcoder2ForCausalLM",), starcoder2.fields, starcoder2.locations),
}
"""``model_type`` of a config → its family."""

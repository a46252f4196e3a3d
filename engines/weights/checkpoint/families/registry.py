"""The families that are supported, by the ``model_type`` of their configs."""

from collections.abc import Mapping
from typing import Final

from engines.weights.checkpoint.families import (
    bloom,
    cohere,
    deepseek,
    falcon,
    gemma,
    glm,
    gpt2,
    gpt_bigcode,
    gpt_oss,
    gptj,
    llama,
    llama_like,
    mixtral,
    neox,
    opt,
    phi,
    phi3,
    qwen_moe,
    stablelm,
    starcoder2,
)
from engines.weights.checkpoint.families.family import Family

GPT_2: Final = "transformer"
DEEPSEEK: Final = ("configuration_deepseek", "modeling_deepseek")

FAMILIES: Final[Mapping[str, Family]] = {
    "bloom": Family(("BloomForCausalLM",), bloom.fields, bloom.locations, inner=GPT_2),
    "cohere": Family(("CohereForCausalLM",), cohere.fields, llama.locations),
    "deepseek_v2": Family(("DeepseekV2ForCausalLM",), deepseek.v2, deepseek.locations, own_code=DEEPSEEK),
    "deepseek_v3": Family(
        ("DeepseekV3ForCausalLM",), deepseek.v3, deepseek.locations, own_code=DEEPSEEK, is_apart=deepseek.is_apart
    ),
    "falcon": Family(
        ("FalconForCausalLM",),
        falcon.fields,
        falcon.locations,
        inner="transformer",
        own_code=("configuration_falcon", "modeling_falcon"),
    ),
    "gemma": Family(("GemmaForCausalLM",), gemma.gemma, gemma.locations),
    "gemma2": Family(("Gemma2ForCausalLM",), gemma.gemma2, gemma.locations),
    "gemma3_text": Family(("Gemma3ForCausalLM",), gemma.gemma3, gemma.locations),
    "glm": Family(("GlmForCausalLM",), glm.fields, glm.locations),
    "gpt2": Family(("GPT2LMHeadModel",), gpt2.fields, gpt2.locations, inner=GPT_2),
    "gpt_bigcode": Family(("GPTBigCodeForCausalLM",), gpt_bigcode.fields, gpt_bigcode.locations, inner=GPT_2),
    "gpt_neox": Family(("GPTNeoXForCausalLM",), neox.fields, neox.locations),
    "gpt_oss": Family(("GptOssForCausalLM",), gpt_oss.fields, gpt_oss.locations),
    "gptj": Family(("GPTJForCausalLM",), gptj.fields, gptj.locations, inner=GPT_2),
    "granite": Family(("GraniteForCausalLM",), llama_like.granite, llama.locations),
    "helium": Family(("HeliumForCausalLM",), llama_like.helium, llama.locations),
    "kimi_k2": Family(
        ("DeepseekV3ForCausalLM",), deepseek.v3, deepseek.locations, own_code=DEEPSEEK, is_apart=deepseek.is_apart
    ),
    "llama": Family(("LlamaForCausalLM", "LLaMAForCausalLM"), llama.fields, llama.locations),
    "mistral": Family(("MistralForCausalLM",), llama_like.mistral, llama.locations),
    "mixtral": Family(("MixtralForCausalLM",), mixtral.fields, mixtral.locations),
    "opt": Family(("OPTForCausalLM",), opt.fields, opt.locations, inner="model"),
    "phi": Family(("PhiForCausalLM",), phi.fields, phi.locations, own_code=("configuration_phi", "modeling_phi")),
    "phi3": Family(("Phi3ForCausalLM",), phi3.fields, phi3.locations, own_code=("configuration_phi3", "modeling_phi3")),
    "qwen2": Family(("Qwen2ForCausalLM",), llama_like.qwen2, llama.locations),
    "qwen2_moe": Family(("Qwen2MoeForCausalLM",), qwen_moe.qwen2_moe, qwen_moe.locations),
    "qwen3": Family(("Qwen3ForCausalLM",), llama_like.qwen3, llama.locations),
    "qwen3_moe": Family(("Qwen3MoeForCausalLM",), qwen_moe.qwen3_moe, qwen_moe.locations),
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

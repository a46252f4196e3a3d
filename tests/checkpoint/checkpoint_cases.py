"""Tiny random models of transformers, saved as checkpoints."""

import functools
import os

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"

NO_IDS = {"bos_token_id": None, "eos_token_id": None}
SMALL = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64, **NO_IDS}
LLAMA = {**SMALL, "intermediate_size": 64, "num_attention_heads": 4}
LLAMA_31 = {
    "rope_type": "llama3",
    "rope_theta": 50.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FALCON = {**SMALL, "ffn_hidden_size": 64}
CASES = {
    "llama": ("Llama", {**LLAMA, "num_attention_heads": 8, "num_key_value_heads": 2, "rope_theta": 500000.0}),
    "llama tied with biases": (
        "Llama",
        {**LLAMA, "head_dim": 16, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama 3.1": ("Llama", {**LLAMA, "head_dim": 16, "rope_parameters": LLAMA_31}),
    "llama stretched": ("Llama", {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 4.0}}),
    "falcon-7b": ("Falcon", {**FALCON, "num_attention_heads": 4}),
    "falcon-40b": ("Falcon", {**FALCON, "num_attention_heads": 8, "num_kv_heads": 2, "new_decoder_architecture": True}),
    "falcon with one norm": (
        "Falcon",
        {
            **FALCON,
            "num_attention_heads": 8,
            "num_kv_heads": 4,
            "new_decoder_architecture": True,
            "num_ln_in_parallel_attn": 1,
            "tie_word_embeddings": False,
        },
    ),
    "falcon serial": (
        "Falcon",
        {**FALCON, "num_attention_heads": 4, "multi_query": False, "parallel_attn": False, "bias": True},
    ),
    "gpt-j": (
        "GPTJ",
        {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64, **NO_IDS},
    ),
    "neox": ("GPTNeoX", {**SMALL, "intermediate_size": 64, "num_attention_heads": 4, "use_parallel_residual": True}),
    "neox serial": (
        "GPTNeoX",
        {
            **SMALL,
            "intermediate_size": 128,
            "num_attention_heads": 8,
            "use_parallel_residual": False,
            "hidden_act": "gelu_fast",
            "rotary_pct": 0.5,
            "attention_bias": False,
        },
    ),
}
GPT_2 = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **NO_IDS}
GROUPED = {**LLAMA, "num_attention_heads": 8, "num_key_value_heads": 2, "pad_token_id": None}
CASES |= {
    "mistral": ("Mistral", {**GROUPED, "head_dim": 8, "sliding_window": None}),
    "qwen2": ("Qwen2", {**GROUPED, "tie_word_embeddings": True}),
    "seed-oss": ("SeedOss", {**GROUPED, "head_dim": 8, "attention_bias": True, "attention_out_bias": False}),
    "helium": ("Helium", {**GROUPED, "head_dim": 4, "attention_bias": True, "rms_norm_eps": 1e-6}),
    "gpt2": ("GPT2", GPT_2),
    "gpt2 untied": ("GPT2", {**GPT_2, "n_inner": 48, "activation_function": "gelu", "tie_word_embeddings": False}),
    "starcoder": ("GPTBigCode", GPT_2),
    "starcoder multihead": ("GPTBigCode", {**GPT_2, "multi_query": False}),
    "phi": ("Phi", {**GROUPED, "rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.5}}),
    "phi3": ("Phi3", GROUPED),
    "phi3 partly rotated": ("Phi3", {**GROUPED, "rope_parameters": {"rope_theta": 50.0, "partial_rotary_factor": 0.5}}),
    "stablelm": ("StableLm", {**GROUPED, "rope_parameters": {"rope_theta": 50.0, "partial_rotary_factor": 0.5}}),
    "stablelm with biases": (
        "StableLm",
        {**LLAMA, "num_key_value_heads": 2, "use_qkv_bias": True, "tie_word_embeddings": True},
    ),
    "starcoder2": ("Starcoder2", {**GROUPED, "use_bias": True}),
    "glm": ("Glm", {**GROUPED, "head_dim": 8, "rms_norm_eps": 1e-5}),
}
YARN = {"rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0, "original_max_position_embeddings": 16}
LONG_ROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.5, 2.0, 2.5],
    "long_factor": [2.0, 3.0, 5.0, 9.0],
    "factor": 4.0,
}
WINDOW = {"sliding_window": 3}
GEMMA = {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 16}
DENSE = {
    "llama yarn": ("Llama", {**GROUPED, "head_dim": 8, "rope_parameters": YARN}),
    "llama dynamic": (
        "Llama",
        {
            **GROUPED,
            "head_dim": 8,
            "max_position_embeddings": 4,
            "rope_parameters": {"rope_type": "dynamic", "factor": 2.0},
        },
    ),
    "mistral with window": ("Mistral", {**GROUPED, "head_dim": 8, **WINDOW}),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 16}),
    "gemma": ("Gemma", {**GROUPED, "head_dim": 16}),
    "gemma 2": (
        "Gemma2",
        {**GEMMA, **WINDOW, "num_hidden_layers": 3, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "gemma 3": (
        "Gemma3",
        {
            **GEMMA,
            **WINDOW,
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 100.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
            },
        },
    ),
    "cohere": ("Cohere", {**GROUPED, "logit_scale": 0.25}),
    "granite": (
        "Granite",
        {
            **GROUPED,
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.25,
        },
    ),
    "bloom": ("Bloom", {"vocab_size": 61, "hidden_size": 48, "n_layer": 2, "n_head": 6, **NO_IDS}),
    "opt": (
        "OPT",
        {**SMALL, "ffn_dim": 64, "num_attention_heads": 4, "word_embed_proj_dim": 32, "pad_token_id": None},
    ),
    "phi3 with window": ("Phi3", {**GROUPED, **WINDOW}),
    "phi3 long": (
        "Phi3",
        {**LLAMA, "pad_token_id": None, "original_max_position_embeddings": 4, "rope_parameters": LONG_ROPE},
    ),
    "starcoder2 with window": ("Starcoder2", {**GROUPED, **WINDOW, "use_bias": True}),
}
EXPERTS = {**GROUPED, "head_dim": 8, "num_experts_per_tok": 2}
QWEN_MOE = {**EXPERTS, "num_experts": 6, "moe_intermediate_size": 24, "num_hidden_layers": 3}
DEEPSEEK = {
    **LLAMA,
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 12,
    "q_lora_rank": 20,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 1.5,
    "rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.0},
}
SPARSE = {
    "mixtral": ("Mixtral", {**EXPERTS, "num_local_experts": 4, **WINDOW}),
    "qwen2-moe": ("Qwen2Moe", {**QWEN_MOE, "shared_expert_intermediate_size": 40, "mlp_only_layers": [0]}),
    "qwen3-moe": ("Qwen3Moe", {**QWEN_MOE, "norm_topk_prob": True}),
    "gpt-oss": (
        "GptOss",
        {**EXPERTS, **WINDOW, "num_local_experts": 4, "rope_parameters": {**YARN, "truncate": False}},
    ),
    "deepseek-v2": ("DeepseekV2", {**DEEPSEEK, "topk_method": "group_limited_greedy", "n_shared_experts": 2}),
    "deepseek-v2-lite": ("DeepseekV2", {**DEEPSEEK, "q_lora_rank": None, "rope_parameters": None}),
    "deepseek-v3": ("DeepseekV3", DEEPSEEK),
    "deepseek-v3 dense": ("DeepseekV3", {**DEEPSEEK, "first_k_dense_replace": 3, "rope_interleave": False}),
}
TODAY = {**DENSE, **SPARSE}
"""Models with what not every engine runs: windows, softcaps, scaled positions; experts and latents."""
EVERY = {**CASES, **TODAY}
CHIEF = ("llama", "falcon-7b", "falcon-40b", "gpt-j", "neox")
TIME = 5


def saved(name, folder, dtype="float32", **save):
    """The model of a case, saved in ``folder``: matrices that keep activations near 1, norms and biases that show."""
    import torch
    import transformers

    family, changes = EVERY[name]
    torch.manual_seed(0)
    model = getattr(transformers, "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")(
        getattr(transformers, f"{family}{'Text' * (family == 'Gemma3')}Config")(**changes)
    )
    with torch.no_grad():
        for key, weight in model.named_parameters():
            spread = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.1
            weight.normal_(1.0 if weight.ndim == 1 and key.endswith("weight") else 0.0, spread)
        for key, weight in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                weight.normal_(0.0, 0.3)
    model = model.to(getattr(torch, dtype)).eval()
    model.save_pretrained(folder, **save)
    return model


def rewritten(folder, change):
    """``change`` applied to the dict of all stored tensors of a checkpoint of one file."""
    from safetensors.numpy import load_file, save_file

    held = load_file(folder / "model.safetensors")
    change(held)
    save_file(held, folder / "model.safetensors")


def logits(model, tokens):
    """Logits [batch, time, vocab] in float32."""
    import torch

    with torch.no_grad():
        return model.float()(torch.from_numpy(tokens.astype(np.int64)), use_cache=False).logits.numpy()


@functools.cache
def expected(name, folder):
    """A case saved in ``folder``, with its tokens and logits."""
    model = saved(name, folder)
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (8, TIME)).astype(np.int32)
    return tokens, logits(model, tokens)

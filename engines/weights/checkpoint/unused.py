"""Keys of a ``config.json`` that change neither the model nor its size when it runs, whatever their value."""

from collections.abc import Mapping
from typing import Final

_WHY: Final[Mapping[str, str]] = {
    "where the file came from, and what wrote it": """
        _name_or_path name_or_path model_name _commit_hash transformers_version transformers.js_config onnx
        tokenizer_class unsloth_version unsloth_fixed custom_pipelines is_llama_config
    """,
    "how a program computes the same numbers": """
        _attn_implementation _attn_implementation_autoset attn_implementation _flash_attn_2_enabled use_flash_attn
        use_flash_attention flash_attn use_cache use_bfloat16 torchscript tf_legacy_loss chunk_size_feed_forward
        pretraining_tp reorder_and_upcast_attn attention_softmax_in_fp32 scale_attention_softmax_in_fp32
        inference_runner pre_allocate_kv_cache max_batch_size max_sequence_length pad_key_length
        validate_runner_input cache_implementation num_logits_to_keep
    """,
    "token ids": """
        bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id cls_token_id mask_token_id
        decoder_start_token_id bos_token eos_token pad_token prefix
    """,
    "training": """
        initializer_range initializer_factor init_std gradient_checkpointing layerdrop dropout activation_dropout
        attention_dropout attn_pdrop attention_probs_dropout_prob attention_dropout_prob attn_dropout_prob
        hidden_dropout hidden_dropout_prob resid_pdrop residual_dropout resid_dropout ffn_dropout embd_pdrop
        embedding_dropout embed_dropout emb_dropout_prob classifier_dropout router_aux_loss_coef
        output_router_logits
    """,
    "how results are returned": """
        output_attentions output_hidden_states output_scores return_dict use_return_dict return_dict_in_generate
    """,
    "heads of other tasks, which a causal language model does not have": """
        id2label label2id num_labels _num_labels is_decoder problem_type finetuning_task task_specific_params
        summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout
        summary_hidden_size
    """,
    "how text is generated where nothing else is asked for": """
        do_sample temperature top_k top_p typical_p min_p repetition_penalty length_penalty no_repeat_ngram_size
        encoder_no_repeat_ngram_size max_length max_new_tokens min_length min_new_tokens num_beams num_beam_groups
        num_return_sequences diversity_penalty early_stopping bad_words_ids begin_suppress_tokens suppress_tokens
        forced_bos_token_id forced_eos_token_id exponential_decay_length_penalty remove_invalid_values
    """,
}

UNUSED: Final = frozenset(key for keys in _WHY.values() for key in keys.split())
"""The keys."""

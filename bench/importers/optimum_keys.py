"""Keys of optimum-benchmark's config that change no figure, and those that would change what the figures mean."""

from typing import Final

from bench.importers.content import Content

BACKEND, KWARGS, LAUNCHER = "config.backend", "config.scenario.generate_kwargs", "config.launcher"
OFF: Final = (
    (f"{BACKEND}.peft_type", "is an adapter beside the model's weights", ()),
    (f"{BACKEND}.peft_config", "is an adapter beside the model's weights", ()),
    (f"{BACKEND}.deepspeed_inference", "splits the model over GPUs, of which the file states no degrees", ()),
    (f"{BACKEND}.tp_plan", "splits the model over GPUs, of which the file states no degrees", ()),
    (f"{BACKEND}.autocast_enabled", "computes in another format than that of the weights", ()),
    (f"{BACKEND}.cache_implementation", "is a cache in another format or place", ("dynamic", "static", "hybrid")),
    (f"{KWARGS}.num_beams", "is beam search: several sequences a prompt", (1,)),
    (f"{KWARGS}.num_beam_groups", "is beam search: several sequences a prompt", (1,)),
    (f"{KWARGS}.num_return_sequences", "samples several sequences a prompt", (1,)),
    (f"{KWARGS}.prompt_lookup_num_tokens", "is speculative decoding", ()),
    (f"{KWARGS}.assistant_model", "is speculative decoding", ()),
    (f"{KWARGS}.penalty_alpha", "is contrastive search: several forward passes a token", (0,)),
    (f"{LAUNCHER}.nproc_per_node", "are several processes, of which the file states no share of the batch", (1,)),
    (f"{LAUNCHER}.nnodes", "are several nodes, of which the file states no share of the batch", (1, "1")),
)
"""Key, what it means, and its values besides null and false that say that there is none of it."""
KEPT: Final = (
    "config.name",
    "config.print_report",
    "config.log_report",
    *(
        f"{BACKEND}.{key}"
        for key in (
            *("version", "_target_", "task", "library", "model_type", "processor", "seed", "no_weights", "eval_mode"),
            *("inter_op_num_threads", "intra_op_num_threads", "low_cpu_mem_usage", "to_bettertransformer"),
            *("attn_implementation", "allow_tf32", "autocast_dtype", "torch_compile", "torch_compile_target"),
            *("device_map", "torch_compile_config.*", "deepspeed_inference_config.*", "processor_kwargs.*"),
        )
    ),
    *(f"config.scenario.{key}" for key in ("_target_", "iterations", "duration", "warmup_runs", "new_tokens")),
    *(f"config.scenario.{key}" for key in ("memory", "latency", "energy", "input_shapes.num_choices")),
    *(f"{KWARGS}.{key}" for key in ("do_sample", "temperature", "top_k", "top_p", "pad_token_id", "eos_token_id")),
    "config.launcher.*",
    "config.environment.*",
    "report.load_model.*",
    "report.load.*",
    "report.first_generate.*",
    "report.per_token.*",
    *(f"report.{phase}.{kind}.*" for phase in ("prefill", "decode") for kind in ("memory", "energy", "efficiency")),
)


def check_meaning(content: Content) -> None:
    """Refuse by name what would change the meaning of the figures.

    Raises:
        ShardbenchError: a key is not at the value that says that there is none of it.
    """
    for key, meaning, allowed in OFF:
        content.off(key, meaning, *allowed)
    scenario, launcher = content.text("config.scenario.name"), content.text(f"{LAUNCHER}.name")
    if scenario is not None and scenario.value != "inference":
        raise content.refused("config.scenario.name", "is not inference", "import an inference benchmark")
    if launcher is not None and launcher.value == "torchrun" and not content.has(f"{LAUNCHER}.nproc_per_node"):
        raise content.refused(
            f"{LAUNCHER}.name", "starts processes whose number is missing", "import an unmodified file"
        )
    cache = content.flag(f"{KWARGS}.use_cache")
    if cache is not None and not cache.value:
        raise content.refused(f"{KWARGS}.use_cache", "reads the whole context in each step", "import one with a cache")

"""What SGLang says of the server that it measured: its model, number formats and chips."""

from dataclasses import replace
from typing import Final

from bench.importers.content import Content
from bench.importers.known import by_rule, stated
from bench.importers.number_formats import of_weights
from bench.importers.setting import Setting

OFF: Final = (
    ("speculative_algorithm", "is speculative decoding", ()),
    ("lora_paths", "are adapters beside the model's weights", ()),
    ("enable_lora", "is an adapter beside the model's weights", ()),
    ("disaggregation_mode", "is prefill and decode on separate chips", ("null",)),
    ("json_model_override_args", "changes the model", ("{}",)),
    ("torchao_config", "is quantisation, which maps to no number format of a row", ()),
    ("cpu_offload_gb", "keeps weights outside of the chips", (0,)),
    ("enable_hierarchical_cache", "keeps a cache of prompts outside of the chips", ()),
)
"""Key → what it means, and its values besides null and false that say that it is off."""


def server_setting(content: Content, under: str) -> Setting:
    """The setting that the server's arguments below ``under`` make; an empty one if there are none.

    Raises:
        ShardbenchError: the server did what no row can say.
    """
    if not content.names(under):
        return Setting()
    for key, meaning, allowed in OFF:
        content.off(f"{under}.{key}", meaning, *allowed)
    tensor, pipeline = content.integer(f"{under}.tp_size"), content.integer(f"{under}.pp_size")
    attention_copies = content.flag(f"{under}.enable_dp_attention")
    if attention_copies is None or not attention_copies.value:
        # Copies of the whole model; of the attention alone they are within the tensor-parallel chips.
        content.off(f"{under}.dp_size", "is several copies of the model", 1)
    formats = of_weights(content, f"{under}.dtype", f"{under}.quantization")
    chips = None
    if tensor is not None:
        count = tensor.value * (1 if pipeline is None else pipeline.value)
        chips = by_rule("chips_of_degrees", count, tensor, pipeline)
    content.keep(f"{under}.*")
    degrees = stated(tensor_parallel=tensor, pipeline_parallel=pipeline, num_chips=chips)
    return replace(formats, point={**formats.point, **degrees}, model=content.text(f"{under}.model_path"))

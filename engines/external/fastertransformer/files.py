"""Input files of ``multi_gpu_gpt_example``: ``gpt_config.ini`` and ``start_ids.csv``."""

import configparser
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.core.weight_groups import check_one_weight_format
from engines.external.engine import check_generate
from engines.weights.random import prompt

CONFIG_FILE: Final = "gpt_config.ini"
PROMPT_FILE: Final = "start_ids.csv"
DATA_TYPES: Final = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def check_supported(point: Point) -> None:
    """Check that the example program can run a point.

    Raises:
        Unsupported: the architecture is not GPT-3's, or the phase or a dtype is not supported.
    """
    check_generate(point)
    check_one_weight_format(point)
    model = point.model
    features = {
        "block=serial": model.block == "serial",
        "activation=gelu or gelu_tanh": not model.ffn.gated,
        "position=learned": model.position == "learned",
        "norm=layernorm": model.norm == "layernorm",
        "num_kv_heads=num_heads": model.num_kv_heads == model.num_heads,
        "tied_embedding=true": model.tied_embedding,
        "attn_bias, ffn_bias and norm_bias": model.attn_bias and model.ffn_bias and model.norm_bias,
    }
    missing = [name for name, has in features.items() if not has]
    if missing:
        raise Unsupported(
            f"model={model.name}: engine=fastertransformer needs {missing[0]}; use a model of GPT-3's architecture"
        )
    if point.act_dtype not in DATA_TYPES or point.weight_dtype not in (point.act_dtype, "int8"):
        raise Unsupported(
            f"weight_dtype={point.weight_dtype} act_dtype={point.act_dtype}: engine=fastertransformer computes in "
            f"{', '.join(DATA_TYPES)}, with weights of the same dtype or int8"
        )
    if point.weight_dtype == "int8" and point.act_dtype == "float32":
        raise Unsupported("act_dtype=float32: engine=fastertransformer runs int8 weights with float16 or bfloat16 only")
    if point.kv_dtype != point.act_dtype:
        raise Unsupported(f"kv_dtype={point.kv_dtype}: engine=fastertransformer caches in act_dtype={point.act_dtype}")


def write_files(folder: Path, point: Point, model_dir: str, sampling: Mapping[str, float], seed: int) -> None:
    """Write both files. If ``model_dir`` has no weights, the program generates random ones."""
    model = point.model
    name = "".join(letter if letter.isalnum() else "_" for letter in model.name)
    config = configparser.ConfigParser()
    config["ft_instance_hyperparameter"] = {
        "max_batch_size": str(point.batch_size),
        "max_seq_len": str(point.input_len + point.output_len),
        "beam_width": "1",
        "top_k": str(int(sampling["top_k"])),
        "top_p": str(sampling["top_p"]),
        "temperature": str(sampling["temperature"]),
        "tensor_para_size": str(point.tensor_degree),
        "pipeline_para_size": str(point.pipeline_degree),
        "data_type": DATA_TYPES[point.act_dtype],
        "int8_mode": "1" if point.weight_dtype == "int8" else "0",
        "model_name": name,
        "model_dir": model_dir,
    }
    config["request"] = {
        "request_batch_size": str(point.batch_size),
        "request_output_len": str(point.output_len),
        "remove_padding": "false",
    }
    config[name] = {
        "head_num": str(model.num_heads),
        "size_per_head": str(model.head_dim),
        "vocab_size": str(model.vocab_size),
        "decoder_layers": str(model.num_layers),
        "start_id": str(model.vocab_size - 1),
        # Not an id of the vocabulary: generation never stops early.
        "end_id": str(model.vocab_size),
        "inter_size": str(model.d_ff),
    }
    with (folder / CONFIG_FILE).open("w", encoding="utf-8") as file:
        config.write(file)
    ids = prompt(model, point.batch_size, point.input_len, seed)
    lines = [",".join(map(str, row)) for row in ids.tolist()]
    (folder / PROMPT_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")

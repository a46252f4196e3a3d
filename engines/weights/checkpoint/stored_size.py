"""How many parameters a checkpoint's files hold: by their headers, or by the index that lists them."""

import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.files import BUFFERS, INDEX, SINGLE, read_json
from engines.weights.checkpoint.quantized import decoded_shapes

FORMAT_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
LARGEST_HEADER: Final = 100 << 20
"""Bytes; safetensors' own limit."""


def stored_params(
    config: Config, copies: Mapping[str, int], is_apart: Callable[[str], bool] = lambda name: False
) -> tuple[int, str] | None:
    """(parameters, where that stands) of the checkpoint in the folder of a config, or None where nothing states it.

    ``copies`` are tensors that are not counted, with their elements: a tied matrix that is stored once more. Neither
    are those that are ``is_apart``, nor the constants that old checkpoints store with the weights; an index does not
    tell the size of these, and so states nothing where it lists some. Only headers are read.

    Raises:
        InvalidRequest: a file is not what it is called.
    """
    folder = config.path
    if not folder.is_dir():
        return None
    index = read_json(folder, INDEX, config.asked) if (folder / INDEX).is_file() else None
    listed = index.get("weight_map") if index is not None else {"": SINGLE}
    files = sorted({folder / str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    if files and all(path.is_file() for path in files):
        return sum(_elements(config, path, copies, is_apart) for path in files), "the headers of its safetensors"
    return None if index is None else _by_index(config, index, copies, is_apart)


def _elements(config: Config, path: Path, copies: Collection[str], is_apart: Callable[[str], bool]) -> int:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        raw = file.read(length) if length <= LARGEST_HEADER else b""
    try:
        entries: dict[str, Any] = json.loads(raw)
        entries.pop("__metadata__", None)
        stored = {name: (tuple(entry["shape"]), str(entry["dtype"])) for name, entry in entries.items()}
        decoded, parts = decoded_shapes(stored)
        return sum(
            math.prod(shape)
            for name, (shape, _) in {**stored, **decoded}.items()
            if name not in parts and name not in copies and not BUFFERS.search(name) and not is_apart(name)
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise config.refused(f"{path.name} is no safetensors file", "download that file again") from None


def _by_index(
    config: Config, index: dict[str, Any], copies: Mapping[str, int], is_apart: Callable[[str], bool]
) -> tuple[int, str] | None:
    """By ``metadata.total_parameters``, or ``total_size`` in bytes over the bytes of the config's number format."""
    metadata, names = index.get("metadata"), index.get("weight_map")
    if not isinstance(metadata, dict) or not isinstance(names, dict) or any(map(BUFFERS.search, names)):
        return None
    if any(map(is_apart, names)) or config.content.get("quantization_config") is not None:
        return None
    twice = sum(elements for name, elements in copies.items() if name in names)
    total = metadata.get("total_parameters")
    if isinstance(total, int) and total > 0:
        return total - twice, f"total_parameters of {INDEX}"
    stored = str(config.content.get("dtype") or config.content.get("torch_dtype")).removeprefix("torch.")
    size = metadata.get("total_size")
    if not isinstance(size, (int, float)) or size <= 0 or stored not in FORMAT_BYTES:
        return None
    return int(size) // FORMAT_BYTES[stored] - twice, f"total_size of {INDEX} in {stored}"

"""How many parameters a checkpoint's files hold: by their headers, or by the index that lists them."""

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.files import BUFFERS, INDEX, SINGLE, read_json

FORMAT_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
LARGEST_HEADER: Final = 100 << 20
"""Bytes; safetensors' own limit."""


def stored_params(config: Config, not_counted: Collection[str]) -> tuple[int, str] | None:
    """(parameters, where that stands) of the checkpoint in the folder of a config, or None where nothing states it.

    The tensors of ``not_counted`` are left out, such as a tied matrix that is stored once more; so are constants that
    old checkpoints store with the weights. Only headers are read.

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
        return sum(_elements(config, path, not_counted) for path in files), "the headers of its safetensors"
    return None if index is None else _by_index(config, index)


def _elements(config: Config, path: Path, not_counted: Collection[str]) -> int:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        raw = file.read(length) if length <= LARGEST_HEADER else b""
    try:
        entries: dict[str, Any] = json.loads(raw)
        return sum(
            math.prod(entry["shape"])
            for name, entry in entries.items()
            if name != "__metadata__" and name not in not_counted and not BUFFERS.search(name)
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise config.refused(f"{path.name} is no safetensors file", "download that file again") from None


def _by_index(config: Config, index: dict[str, Any]) -> tuple[int, str] | None:
    """By ``metadata.total_parameters``, or ``total_size`` in bytes over the bytes of the config's number format."""
    metadata = index.get("metadata")
    if not isinstance(metadata, dict):
        return None
    total = metadata.get("total_parameters")
    if isinstance(total, int) and total > 0:
        return total, f"total_parameters of {INDEX}"
    stored = str(config.content.get("dtype") or config.content.get("torch_dtype")).removeprefix("torch.")
    size = metadata.get("total_size")
    if not isinstance(size, (int, float)) or size <= 0 or stored not in FORMAT_BYTES:
        return None
    return int(size) // FORMAT_BYTES[stored], f"total_size of {INDEX} in {stored}"

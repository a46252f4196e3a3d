"""The safetensors files of a checkpoint: which tensors there are, and ranges of them without the rest."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from engines.core.errors import InvalidRequest, Unsupported
from engines.weights.checkpoint.quantized import BLOCKS, FLOAT8, MXFP4, decoded_shapes, read_float8, read_mxfp4

KEY: Final = "engine.checkpoint"
CONFIG: Final = "config.json"
SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
BUFFERS: Final = re.compile(r"\.(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias)$")
"""Constants that old checkpoints store with the weights: rotary frequencies and causal masks."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One stored tensor. ``dtype`` is safetensors' name: F32, F16, BF16 and others; or MXFP4."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


class Files:
    """The tensors of all files of a folder by name, in file order.

    Files are mapped into memory: a read touches its range alone.
    """

    def __init__(self, folder: Path) -> None:
        """Open them and read their headers.

        Raises:
            InvalidRequest: the folder or a file is missing, or cannot be read as what it is called.
            Unsupported: safetensors is not installed.
        """
        try:
            import ml_dtypes  # noqa: F401  numpy then knows bfloat16 by its name
            from safetensors import SafetensorError, safe_open
        except ImportError:
            raise Unsupported(
                f"{KEY}={folder}: reading it needs safetensors; pip install 'shardbench[checkpoints]'"
            ) from None
        self.folder = folder
        self.entries: dict[str, StoredTensor] = {}
        self._opened: dict[Path, Any] = {}
        for path in weight_files(folder):
            try:
                file: Any = safe_open(path, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise InvalidRequest(
                    KEY, folder, f"{path.name} cannot be read ({error})", "download that file again"
                ) from None
            self._opened[path] = file
            for name in file.offset_keys():
                head = file.get_slice(name)
                self.entries[name] = StoredTensor(path, tuple(head.get_shape()), head.get_dtype())
        self._stored = dict(self.entries)
        decoded, parts = decoded_shapes({name: (each.shape, each.dtype) for name, each in self.entries.items()})
        for name, (shape, dtype) in decoded.items():
            file_of = self._stored.get(name) or self._stored[name + BLOCKS]
            self.entries[name] = StoredTensor(file_of.file, shape, dtype)
        for name in parts:
            del self.entries[name]

    def read(self, name: str, *index: slice) -> NDArray[Any]:
        """``name[index]`` in its stored format, or decoded; slices have explicit bounds and are not empty."""
        entry = self.entries.get(name)
        if entry is not None and entry.dtype == MXFP4:
            return read_mxfp4(self._read, name, index)
        if entry is not None and entry.dtype == FLOAT8:
            return read_float8(entry.file, self._read, name, entry.shape, index)
        return self._read(name, *index)

    def _read(self, name: str, *index: slice) -> NDArray[Any]:
        found: NDArray[Any] = self._opened[self._stored[name].file].get_slice(name)[index]
        return found


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint, sorted: those in its index, or the single file.

    Raises:
        InvalidRequest: the folder does not exist, or a file is missing.
    """
    if not folder.is_dir():
        raise InvalidRequest(KEY, folder, "is not a folder", f"give a folder with {CONFIG} and {SINGLE}")
    if (folder / INDEX).is_file():
        listed = read_json(folder, INDEX).get("weight_map")
        if not isinstance(listed, Mapping) or not listed:
            raise InvalidRequest(KEY, folder, f"{INDEX} has no weight_map", "download that file again")
        found = sorted({folder / str(name) for name in listed.values()})
    else:
        found = [folder / SINGLE]
    for path in found:
        if not path.is_file():
            raise InvalidRequest(
                KEY, folder, f"has no {path.name}", "give a folder of safetensors in Hugging Face's layout"
            )
    return found


def read_json(folder: Path, name: str, asked: str = KEY) -> dict[str, Any]:
    """The content of ``folder/name``, given as the key ``asked``.

    Raises:
        InvalidRequest: it is missing, not a JSON object, or one that has a key twice.
    """
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"), object_pairs_hook=_each_key_once)
    except FileNotFoundError:
        raise InvalidRequest(asked, folder, f"has no {name}", f"give a folder with {CONFIG} and {SINGLE}") from None
    except RecursionError:
        raise InvalidRequest(asked, folder, f"{name} is nested too deeply", "download that file again") from None
    except (OSError, ValueError) as error:
        raise InvalidRequest(asked, folder, f"{name} cannot be read ({error})", "download that file again") from None
    if not isinstance(content, dict):
        raise InvalidRequest(asked, folder, f"{name} must be a JSON object", "download that file again")
    return content


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of ``pairs``; JSON's own reader would keep the last of two equal keys and say nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has the key {next(key for key in keys if keys.count(key) > 1)} twice")
    return found

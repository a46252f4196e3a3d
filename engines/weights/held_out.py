"""Texts from files, as the tokens of a model: what quality is measured on, or what a pruned model is chosen by."""

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.core.errors import InvalidRequest, Unsupported
from engines.core.model import Model

WINDOW: Final = 128
"""Tokens of a piece of text that is read at once."""
WINDOWS: Final = 16
"""Pieces that are read, spread over the text."""
BYTES: Final = 256


def windows_of(path: str, model: Model, checkpoint: str | None, key: str = "text") -> NDArray[np.int32]:
    """Pieces of the text that the setting ``key`` names, [windows, time], evenly spread over it.

    ``checkpoint`` may have a tokenizer.

    Raises:
        InvalidRequest: there is no such file, nothing says what its tokens are, or it is shorter than one piece.
        Unsupported: the tokenizers package is not installed.
    """
    ids = _ids(Path(path).expanduser(), model, checkpoint, f"engine.{key}")
    time = min(WINDOW, model.max_positions)
    pieces = min(WINDOWS, len(ids) // time)
    if not pieces:
        raise InvalidRequest(f"engine.{key}", path, f"has {len(ids)} tokens", f"use a text of at least {time}")
    starts = np.linspace(0, len(ids) - time, pieces).astype(np.int64)
    return np.stack([ids[start : start + time] for start in starts])


def _ids(path: Path, model: Model, checkpoint: str | None, key: str) -> NDArray[np.int32]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(key, path, "cannot be read", "use a text file") from error
    tokenizer = None if checkpoint is None else Path(checkpoint).expanduser() / "tokenizer.json"
    if tokenizer is not None and tokenizer.is_file():
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise Unsupported(f"{key} needs tokenizers: pip install tokenizers") from None
        found = Tokenizer.from_file(str(tokenizer)).encode(content.decode("utf-8", "replace")).ids
        return np.asarray(found, np.int32)
    if model.vocab_size != BYTES:
        raise InvalidRequest(
            key, path, f"has no tokens for {model.vocab_size} ids without a tokenizer",
            "use a checkpoint with tokenizer.json, or a model of 256 byte values",
        )  # fmt: skip
    return np.frombuffer(content, np.uint8).astype(np.int32)


def text_identity(key: str, path: str) -> str:
    """NAME@HASH: a file's name, and 16 hex digits over its content.

    Raises:
        InvalidRequest: it cannot be read, or is empty.
    """
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError:
        raise InvalidRequest(f"engine.{key}", path, "cannot be read", "use a text file") from None
    if not content:
        raise InvalidRequest(f"engine.{key}", path, "is empty", "use a text of some thousand bytes")
    return f"{Path(path).name}@{hashlib.sha256(content).hexdigest()[:16]}"

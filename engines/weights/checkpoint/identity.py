"""Identity of a checkpoint by its content, without reading all of it; and which setting named one that is bad."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.files import CONFIG, read_json, weight_files

SAMPLES: Final = 64
SAMPLE_BYTES: Final = 4096


def identity(folder: Path) -> str:
    """NAME@HASH: the folder's name, and 16 hex digits of a hash of its content, independent of its path.

    The hash is over the config, and each weight file's name, size, header and 64 evenly spaced samples of 4 KiB: a
    model and a fine-tuned copy have the same headers, and differ nearly everywhere else.

    Raises:
        InvalidRequest: a file is missing.
    """
    files = weight_files(folder)
    read_json(folder, CONFIG)
    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            digest.update(file.read(min(header_bytes, size)))
            for at in range(SAMPLES):
                file.seek(size * at // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    return f"{folder.resolve().name}@{digest.hexdigest()[:16]}"


@contextmanager
def told_as(key: str) -> Iterator[None]:
    """Within it, what is wrong with a checkpoint is said of the setting ``key``."""
    try:
        yield
    except InvalidRequest as error:
        named = key if error.key == "engine.checkpoint" else error.key
        raise InvalidRequest(named, error.value, error.problem, error.remedy) from None

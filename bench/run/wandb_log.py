"""The transaction log of a W&B run on disk: was it written to its end?

The format is LevelDB's log: after a header of 7 bytes, blocks of 32 KiB of pieces of records, which are protocol
buffers of the library. Its own reader lies in the program behind ``wandb sync`` alone.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

FILE_HEADER_BYTES: Final = 7
BLOCK_BYTES: Final = 32768
PIECE: Final = struct.Struct("<IHB")
"""Head of a piece: its checksum, length in bytes and kind."""
ENDS: Final = frozenset({1, 4})
"""Kinds of pieces that end a record: a whole one, and the last of several."""


def records(log: Path) -> Iterator[Any]:
    """The records of a log, up to the first that is not there in full.

    Raises:
        OSError: the file cannot be read.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, pending = log.read_bytes(), FILE_HEADER_BYTES, b""
    while at + PIECE.size <= len(data):
        if BLOCK_BYTES - at % BLOCK_BYTES < PIECE.size:
            at += BLOCK_BYTES - at % BLOCK_BYTES
            continue
        _, length, kind = PIECE.unpack_from(data, at)
        at += PIECE.size
        if at + length > len(data):
            return
        pending += data[at : at + length]
        at += length
        if kind in ENDS:
            try:
                yield Record.FromString(pending)
            except DecodeError:
                return
            pending = b""


def is_whole(log: Path) -> bool:
    """Whether the log says how its run ended. False for one that a full disk or a killed service cut off."""
    try:
        return any(record.WhichOneof("record_type") == "exit" for record in records(log))
    except OSError:
        return False

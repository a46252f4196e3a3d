"""The text of a file that another program or a spreadsheet wrote, whatever it is packed and encoded as."""

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

from engines.core.errors import ShardbenchError

LARGEST_BYTES: Final = 1 << 28
"""Files above this size, packed or not, are refused rather than read into memory."""
PACKED: Final[Mapping[bytes, Callable[[IO[bytes]], Any]]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""First bytes of a packed file → what unpacks it. A file's name need not say so: uploads often lose the ending."""
ENDINGS: Final = (".gz", ".bz2", ".xz")
"""What names of packed files end in, behind their own ending."""
WIDE: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""First bytes of UTF-16 text, which PowerShell's ``>`` writes and spreadsheets call Unicode."""


def suffix_of(path: Path) -> str:
    """The ending of a file's name in small letters, and without that of packing: ``.json`` of a.JSON.gz."""
    packed = path.suffix.lower() in ENDINGS
    return (Path(path.stem) if packed else path).suffix.lower()


def text_of(path: Path) -> str:
    """The text of a file: UTF-8, or UTF-16 with a byte order mark, plain or packed by gzip, bzip2 or xz.

    Raises:
        OSError: it cannot be read.
        ShardbenchError: it is larger than :data:`LARGEST_BYTES`, packed but damaged, or no such text; says only that.
    """
    with path.open("rb") as file:
        data = _up_to_largest(file)
    unpack = next((each for begin, each in PACKED.items() if data.startswith(begin)), None)
    if unpack is not None:
        try:
            data = _up_to_largest(unpack(BytesIO(data)))
        except (OSError, EOFError, zlib.error, lzma.LZMAError):
            raise ShardbenchError("is packed and damaged; copy it again") from None
    try:
        return data.decode("utf-16" if data.startswith(WIDE) else "utf-8-sig")
    except UnicodeDecodeError:
        raise ShardbenchError("is not UTF-8 text; save it as UTF-8") from None


def _up_to_largest(file: Any) -> bytes:
    data: bytes = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise ShardbenchError(f"is larger than {LARGEST_BYTES >> 20} MiB; use the summary of the benchmark")
    return data

"""Data as text of a format: names and messages of rows are printed as they are, whatever the format makes of them."""

import hashlib
import re
from typing import Final

from engines.core.text import one_line

MARKDOWN: Final = re.compile(
    r"\\(?=[!-/:-@\[-`{-~]|$)"  # a backslash that would escape what follows
    r"|[`*$|]"  # code, emphasis, formulas, the cells of a table
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # emphasis: not the _ inside ws_2d
    r"|~(?=~)"  # deleted text
    r"|[\[\]](?=[^\[\]]*\]\()|\](?=[(\[:])"  # links and images
    r"|^(?:[#>]|[+-](?=[\s+-]|$)|=+$|\d+(?=[.)](?:\s|$)))"  # headings, quotes and lists, at the beginning
)
ENTITY: Final = re.compile(r"&(?=#?\w+;)|<(?=[A-Za-z/!?])")
PORTABLE: Final = re.compile(r"[a-z0-9][a-z0-9.-]*")
RESERVED: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
LONGEST_NAME: Final = 100
DIGEST_LEN: Final = 10


def markdown(text: str) -> str:
    """Text that GitHub-flavoured Markdown shows as it stands, on one line, also in a cell of a table."""
    plain = one_line(" ".join(text.split()))
    escaped = MARKDOWN.sub(lambda found: _escaped(found[0]), plain)
    return ENTITY.sub(lambda found: "&amp;" if found[0] == "&" else "&lt;", escaped)


def _escaped(found: str) -> str:
    return found + "\\" if found.isdigit() else "\\" + found


def file_name(*parts: str) -> str:
    """A name for a file, without its ending: portable, and another one for every other ``parts``.

    Parts of small letters, digits, dots and dashes are joined by ``_``. Of others the name has what it can hold and a
    digest of the rest: no two names are equal on a file system that ignores case, either.
    """
    name = "_".join(parts)
    plain = all(PORTABLE.fullmatch(part) and not part.endswith(".") for part in parts)
    taken = re.search(rf"-[0-9a-f]{{{DIGEST_LEN}}}$", name) or RESERVED.fullmatch(name)
    if plain and not taken and len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=DIGEST_LEN // 2).hexdigest()
    kept = re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip(".-_")
    return f"{kept[: LONGEST_NAME - DIGEST_LEN - 1] or 'x'}-{digest}"

"""The keys of a config file with their comments, which say what each key means."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

LINE: Final = re.compile(r"^(?P<indent> *)(?P<key>[\w.-]+):(?: +(?P<value>[^#]*?))?(?: *# (?P<comment>.*))?$")
HYDRAS: Final = ("defaults", "hydra", "_target_")


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of a config file, ``parent.key`` where it is nested, with the comments above, beside and below it.

    ``section`` is the comment that heads a paragraph of keys; empty where the file has no paragraphs.
    """

    key: str
    value: str
    comment: str
    section: str


def settings(path: Path) -> list[Setting]:
    """The keys of a config file in order, without what is Hydra's own (``defaults``, ``hydra``, ``_target_``)."""
    found: list[Setting] = []
    above: list[str] = []
    parent = section = ""
    after_blank = False
    for line in path.read_text(encoding="utf-8").splitlines():
        match = LINE.match(line)
        if line.startswith("#"):
            above.append(line.lstrip("# "))
        elif line.lstrip().startswith("# ") and found and not after_blank:
            # A comment that goes on below the one beside the key.
            found[-1] = replace(found[-1], comment=f"{found[-1].comment} {line.strip('# ')}")
        elif match is None:
            above, after_blank = [], not line.strip()
        else:
            key = match["key"]
            if match["indent"]:
                key = f"{parent}.{key}"
            elif not match["value"]:
                parent = key
            if after_blank and above:
                section, above = " ".join(above).rstrip("."), []
            if key.partition(".")[0] not in HYDRAS:
                comment = " ".join([*above, match["comment"] or ""]).strip()
                found.append(Setting(key, (match["value"] or "").strip(), comment, section))
            above, after_blank = [], False
    return found

"""A schedule of four instructions, timed by the code that times all of them."""

import re
from pathlib import Path
from typing import Final

from engines.compiled.cost.timeline import walk
from engines.compiled.cost.torus import Torus
from engines.compiled.cost.tpu import TpuCostModel
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.schedule import read_schedule
from engines.core.chip import LinkConstants

SCHEDULE: Final = Path(__file__).with_suffix(".hlo")
LINKS: Final = LinkConstants(link_efficiency=0.77, hop_s=1e-6, launch_s=0.0)
MODEL: Final = TpuCostModel(
    clock_hz=1.05e9,
    hbm_bytes_per_s=1.2e12,
    torus=Torus(shape=(1, 1, 4), wrap=(False, False, True), link_bytes_per_s=45e9),
    links=LINKS,
)
SHAPE: Final = re.compile(r"(?<== )(?:\([^)]*\)|\S+\{1,0\}) ")
"""What is left out of the text that the page shows: results' shapes."""
MARK: Final = "{{ worked_example }}"


def expand(markdown: str) -> str:
    """Put the example in the place of its mark."""
    return markdown.replace(MARK, "\n".join(_lines())) if MARK in markdown else markdown


def _lines() -> list[str]:
    text = SCHEDULE.read_text(encoding="utf-8")
    timeline = walk(read_schedule(parse_module(text)), MODEL)
    entry = SHAPE.sub("", text[text.index("ENTRY") :]).rstrip()
    account = timeline.account
    lines = [
        f"```text\n{entry}\n```",
        "",
        f"On a ring of 4 chips with a clock of {MODEL.clock_hz / 1e9:g} GHz, links of "
        f"{MODEL.torus.link_bytes_per_s / 1e9:g} GB/s of which {LINKS.link_efficiency:.0%} carry payload, and "
        f"{LINKS.hop_s * 1e6:g} µs a hop, the walk makes these bars:",
        "",
        "| lane | instruction | kind | begins (µs) | takes (µs) |",
        "|---|---|---|---|---|",
    ]
    for event in sorted(timeline.events, key=lambda each: (each.start_s, each.lane)):
        if event.seconds > 0:
            times = f"{event.start_s * 1e6:.1f} | {event.seconds * 1e6:.1f}"
            lines.append(f"| {event.lane} | `{event.name}` | {event.note} | {times} |")
    parts = {
        "compute": account.compute_s,
        "communication": account.communication_s,
        "of which overlapped": account.overlapped_s,
        "and exposed": account.exposed_s,
        "total": account.total_s,
    }
    told = ", ".join(f"{name} {seconds * 1e6:.1f} µs" for name, seconds in parts.items())
    return [*lines, "", f"Summed up: {told}. The total is compute and what is exposed."]

"""The meaning of a point's keys, from the schema that checks them."""

from engines.core.keys import Choice, Integer, Number
from engines.core.point import Point


def meanings() -> dict[str, str]:
    """Key → what it means and what it may be: ``what is timed: prefill | decode | generate``."""
    found = {}
    for name, key in Point.schema().items():
        kind, text = key.about.kind, key.about.meaning
        if isinstance(kind, Choice):
            text = f"{text}: {' | '.join(kind.names)}"
        elif isinstance(kind, Integer):
            zero = f", 0 in {' and '.join(kind.zero_in)}" if kind.zero_in else ""
            text = f"{text}: an integer ≥ {kind.minimum}{zero}"
        elif isinstance(kind, Number):
            text = f"{text}: a number {'≥' if kind.at_least else '>'} {kind.minimum:g}"
        if (needs := key.about.needs) is not None:
            text = f"{text}; {needs.words} alone"
        left_open = key.about.engine_chooses and "engine" not in text
        found[name] = f"{text}; auto: the engine chooses" if left_open else text
    return found

"""Which cases of a parametrised test the suite runs: one in so many, each value of a parameter among them."""

from collections import Counter
from zlib import crc32


def kept(cases, every):
    """The items of ``cases`` (of one test function) that run where one in ``every`` is asked for.

    They are in the order of a checksum of their names: the same each time, and no stride that misses half of a
    parameter's values. Then follow cases with a value that is in several cases and in none of those kept, so that no
    such value goes without.
    """
    ordered = sorted(cases, key=lambda item: crc32(item.name.encode()))
    often = Counter(value for item in cases for value in _values(item))
    few = -(-len(cases) // every)
    found, seen = ordered[:few], set()
    for item in found:
        seen |= _values(item)
    for item in ordered[few:]:
        if new := {value for value in _values(item) if often[value] > 1} - seen:
            found.append(item)
            seen |= new
    return found


def _values(item):
    return {(name, str(value)) for name, value in item.callspec.params.items()}

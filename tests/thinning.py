"""Which cases of a parametrised test the suite runs: one in so many, each value of a parameter among them."""

from collections import Counter
from zlib import crc32


def kept(cases, every):
    """The items of ``cases`` (of one test function) that run where one in ``every`` is asked for.

    No value that is in several cases goes without: first come the cases that show most of them that none has shown yet.
    Others fill up the number. Of equals, and then, the order is that of a checksum of their names: the same each time,
    and no stride that misses half of a parameter's values.
    """
    left = sorted(cases, key=lambda item: crc32(item.name.encode()))
    often = Counter(value for item in cases for value in _values(item))
    unseen = {value for value, count in often.items() if count > 1}
    found = []
    while unseen:
        found.append(max(left, key=lambda item: len(_values(item) & unseen)))
        left.remove(found[-1])
        unseen -= _values(found[-1])
    few = -(-len(cases) // every)
    return [*found, *left[: max(0, few - len(found))]]


def _values(item):
    return {(name, str(value)) for name, value in item.callspec.params.items()}

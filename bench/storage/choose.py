"""Which storage a place is in."""

from pathlib import Path

from bench.storage.folder import FOLDERS
from bench.storage.place import scheme_of
from bench.storage.storage import Storage


def storage_of(place: Path) -> Storage:
    """The storage that holds a place: see :func:`bench.storage.place.place_of`."""
    if scheme_of(place) is None:
        return FOLDERS
    from bench.storage.objects import Objects

    return Objects(place)

"""Whether a store that is to be read is there at all: a mistyped name is no empty store."""

from pathlib import Path

from bench.storage.place import scheme_of
from engines.core.errors import InvalidRequest


def check_there(place: Path, key: str = "results_dir") -> None:
    """Check that a folder exists; a prefix of an object store does as soon as something is written below it.

    Raises:
        InvalidRequest: there is no such folder.
    """
    if scheme_of(place) is None and not place.is_dir():
        problem = "is a file" if place.exists() else "does not exist"
        raise InvalidRequest(key, place, problem, "use the results_dir of shardbench run")

"""What the text of a ``results_dir`` means: a folder, or a prefix of an object store such as ``s3://bucket/prefix``."""

import logging
import os
import re
from pathlib import Path
from typing import Any, Final, cast

from engines.core.errors import InvalidRequest

URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
EXTRAS: Final = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "memory": "s3"}
"""Scheme → the extra that brings its library. Each of them writes an object only where none is, for one writer alone.

``memory`` is within one process, for tests.
"""
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "s3": {
        "use_listings_cache": False,
        "config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}},
    },
    "gs": {"use_listings_cache": False},
    "gcs": {"use_listings_cache": False},
    "memory": {},
}
"""Others write the store too, so no listing may be remembered."""
BESIDE: Final = "results"
"""The folder of what belongs to no row (runs of W&B, traces) where the rows are in an object store."""


def scheme_of(place: object) -> str | None:
    """The scheme of a URL; None for a path."""
    found = URL.match(str(place))
    return None if found is None else found[1]


def place_of(results_dir: str | os.PathLike[str]) -> Path:
    """The place of a store; one in an object store has the methods of a path that do not change files.

    Raises:
        InvalidRequest: it is a URL that no store can have, or its library is not installed.
    """
    if not isinstance(results_dir, str):
        return cast(Path, results_dir)
    scheme = scheme_of(results_dir)
    if scheme is None:
        return Path(results_dir)
    if scheme not in EXTRAS:
        known = ", ".join(f"{each}://" for each in EXTRAS if each != "memory")
        raise InvalidRequest("results_dir", results_dir, f"is in no storage known here ({known})", "or use a folder")
    if not results_dir.partition("://")[2].strip("/"):
        raise InvalidRequest("results_dir", results_dir, "names no bucket", f"use {scheme}://BUCKET/PREFIX")
    try:
        from upath import UPath

        # What its library says of a request that fails is told as one sentence by who asked.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        return cast(Path, UPath(results_dir.rstrip("/"), **OPTIONS[scheme]))
    except ImportError as error:
        raise InvalidRequest(
            "results_dir",
            results_dir,
            f"needs {error.name}, which is not installed",
            f"pip install 'shardbench[{EXTRAS[scheme]}]', or use a folder",
        ) from None


def folder_beside(results_dir: str) -> str:
    """The folder of what belongs to no row: that of the store, or :data:`BESIDE` where it is in an object store."""
    return results_dir if scheme_of(results_dir) is None else BESIDE

"""Whether a store can take rows, asked before anything is measured."""

import os
import secrets
from datetime import UTC, datetime
from typing import Final

from bench.rows.atomic import cannot
from bench.rows.counted import counted
from bench.rows.part_time import newest
from bench.rows.store import Store
from bench.storage.folder import TEMPORARY
from engines.core.errors import InvalidRequest

PROBE_BYTES: Final = 16384
"""Size of the file that is written for a try: more than a row with two hundred samples has."""
ROW_BYTES: Final = 4096
"""What a row takes on disk at least: a file of its own, or about its own length among others."""


def check_writable(store: Store, rows: int) -> None:
    """Write a file as an append does, remove it, and check that the file system has room for ``rows`` more rows.

    Raises:
        InvalidRequest: the folder cannot be written, or there is too little room; names the folder and the reason.
    """
    with cannot("written", store.results_dir):
        store.storage.make_folder(store.rows_dir)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        # The name ends so that readers ignore it, and what a kill leaves is removed by `results check repair=true`.
        tried = store.rows_dir / f"{stamp}-{os.getpid()}-{secrets.token_hex(4)}-n0.jsonl{TEMPORARY}"
        store.storage.try_to_write(tried, b"\n" * PROBE_BYTES)
        free = store.storage.free_bytes(store.rows_dir)
    if free is not None and free < rows * ROW_BYTES:
        raise InvalidRequest(
            "results_dir",
            store.results_dir,
            f"has room for {free / 1e6:.2f} MB, and about {rows * ROW_BYTES / 1e6:.2f} MB are needed for "
            f"{counted(rows, 'row')}",
            "free some space there, or use a folder elsewhere",
        )


def overwriting_storage(store: Store) -> str | None:
    """A sentence where the storage does not let one of several writers alone create a file; None if all is well."""
    with cannot("written", store.results_dir):
        store.storage.make_folder(store.results_dir)
        if store.storage.creates_once(store.results_dir / f".probe-{os.getpid()}-{secrets.token_hex(4)}"):
            return None
    return (
        f"{store.results_dir}: its storage overwrites what is to be created (no If-None-Match), so two commands at "
        "once may do a point twice"
    )


def future_part(store: Store) -> str | None:
    """A sentence where the newest file is dated after now, so that a clock is or was wrong; None if all is well."""
    last = newest(store.parts())
    if last is None or last.marked or last.written <= datetime.now(UTC):
        return None
    return (
        f"{store.rows_dir} has a file dated {last.written:%Y-%m-%d %H:%M:%S} UTC, which is after now, so a clock is "
        "wrong; what is stored from now on counts as newer"
    )

"""The published tables of times that come with shardbench, as files."""

from engines.published.table import tables


def published_files():
    return list(tables().values())

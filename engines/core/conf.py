"""Where the config groups of ``conf/`` are."""

from pathlib import Path


def conf_dir() -> Path:
    """The folder ``conf/``: inside this package in a wheel, next to it in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"

"""Which versions of which libraries are installed."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

JAX_LIBRARIES: Final = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda12-pjrt")
"""Libraries whose versions determine what JAX compiles."""


def versions_of(names: Sequence[str]) -> dict[str, str]:
    """Name → version of the installed ones among ``names``."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

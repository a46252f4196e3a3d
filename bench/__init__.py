"""The harness, and what Python programs and notebooks use of it.

``load`` gives the rows of a store as a frame, ``ask`` one row, ``ask_all`` a frame of rows, ``plot`` a figure;
``estimate`` and ``testing`` are modules: any JAX function on chips that are not there, and a pytest plugin. Nothing is
imported before it is used.
"""

from importlib import import_module

# Type checkers take a name so called for that of typing, which `python -m` would look for in the current folder first.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from bench.api.asking import ask, ask_all
    from bench.api.frame import load
    from bench.api.plot import plot
    from engines.core.errors import InvalidRequest, ShardbenchError
    from engines.core.row import Row

__all__ = ["InvalidRequest", "Row", "ShardbenchError", "ask", "ask_all", "estimate", "load", "plot", "testing"]

_PLACES = {
    "ask": "bench.api.asking",
    "ask_all": "bench.api.asking",
    "load": "bench.api.frame",
    "plot": "bench.api.plot",
    "InvalidRequest": "engines.core.errors",
    "ShardbenchError": "engines.core.errors",
    "Row": "engines.core.row",
}
"""Name → the module that defines it."""
_MODULES = ("estimate", "testing")


def __getattr__(name: str) -> object:
    """Import what is asked for (PEP 562)."""
    if name in _MODULES:
        return import_module(f"bench.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

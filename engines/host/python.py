"""Command lines and environments of Python processes that this one starts. No other module makes them.

They work from any current folder: ``-P`` keeps it off the path, so that a user's own ``json.py``, ``jax.py`` or
``bench/`` there is never taken for the library or for these packages.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from engines.host import keep_scratch, run_module, supervise

ROOT: Final = Path(__file__).parents[2]
"""The folder of the packages ``engines`` and ``bench``: a checkout or ``site-packages``."""
INTERACTIVE: Final = ("PYTHONINSPECT", "PYTHONSTARTUP")
"""Variables of a Python at a prompt: with the first, a process would wait for input at its end."""


def module_words(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of these packages, the same as here, whatever the current folder holds."""
    return script_words(sys.executable, run_module.__file__, str(ROOT), module, *arguments)


def code_words(code: str) -> list[str]:
    """The command line that runs ``code``."""
    return script_words(sys.executable, "-c", code)


def python_of(path: str | None) -> str:
    """The Python at ``path`` or of that name; None is the one of this process."""
    return path or sys.executable


def script_words(python: str, *words: str) -> list[str]:
    """The command line by which a Python runs a script, or ``-c`` and code.

    One of another environment takes nothing from ``PYTHONPATH``: what lies there is for the Python of this process.
    """
    return [python, "-P" if python == sys.executable else "-I", *words]


def supervised_words(*words: str) -> list[str]:
    """The command line that runs ``words`` until stdin closes: see :mod:`engines.host.supervise`."""
    return _alone(supervise.__file__, *words)


def keeper_words(parent: str, prefix: str) -> list[str]:
    """The command line that keeps a temporary folder until stdin closes: see :mod:`engines.host.keep_scratch`."""
    return _alone(keep_scratch.__file__, parent, prefix)


def _alone(script: str, *arguments: str) -> list[str]:
    """A script that needs the standard library alone: nothing of the user's is imported, not even at start."""
    return [sys.executable, "-I", "-S", script, *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment and ``more``, for a Python process that nobody types at.

    ``PYTHONPATH`` stays, for what a user put there on purpose, without empty entries: they mean the current folder, and
    come from ``PYTHONPATH=$PYTHONPATH:mine`` where it was not set before. ``PYTHONWARNINGS=error`` becomes ``default``:
    a library's deprecation is no reason to lose a point.
    """
    found = {name: value for name, value in os.environ.items() if name not in INTERACTIVE} | dict(more or {})
    if "PYTHONPATH" in found:
        found["PYTHONPATH"] = os.pathsep.join(filter(None, found["PYTHONPATH"].split(os.pathsep)))
    if "PYTHONWARNINGS" in found:
        found["PYTHONWARNINGS"] = re.sub(r"(^|,)\s*error", r"\1default", found["PYTHONWARNINGS"])
    return found

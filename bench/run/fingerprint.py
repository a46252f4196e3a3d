"""A fingerprint of the code that answers, so that a stored row is reused only while that code stands."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Final

import engines
from engines.core.engine import Engine, Runner
from engines.core.versions import JAX_LIBRARIES, versions_of

TIMING_MODULES: Final = ("timing.py", "stats.py")
LIBRARIES: Final = (*JAX_LIBRARIES, "torch")
"""What runs or compiles the model: another version is other timed code."""
SUFFIXES: Final = frozenset({".py", ".csv", ".json", ".yaml"})


def code_fingerprint(engine: Engine) -> str:
    """Fingerprint of the vocabulary, the engine's packages and options and, for no look-up, the libraries below.

    Returns:
        16 hex digits.
    """
    parts = [_folder(Path(engines.__path__[0]) / name) for name in ("core", *engine.code)]
    if isinstance(engine, Runner):
        parts += [_digest(Path(__file__).parents[1] / "measure" / name) for name in TIMING_MODULES]
    if engine.source in ("measured", "compiled"):
        parts += [f"{name}={version};" for name, version in versions_of(LIBRARIES).items()]
    options = getattr(engine, "options", None)
    if options:
        parts.append(json.dumps(options, sort_keys=True, default=str))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


@cache
def _folder(folder: Path) -> str:
    chosen = [path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES and "__pycache__" not in path.parts]
    return "".join(f"{path.relative_to(folder)}:{_digest(path)};" for path in chosen)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

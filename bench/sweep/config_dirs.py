"""The user's own config folders: ``--config-dir FOLDER`` on the command line, and an environment variable."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.sweep.paths import path_of
from engines.core.errors import InvalidRequest

VARIABLE: Final = "SHARDBENCH_CONFIG_DIR"
"""Environment variable with folders, separated as in ``PATH``. Child processes find the folders there, too."""
FLAGS: Final = ("--config-dir", "-cd")
GROUPS: Final = ("engine", "hw", "model", "preset", "price", "runtime", "sweep", "timing", "wandb")
"""The groups of ``conf/``; a user's folder may have others for Hydra's own use."""


def user_dirs() -> tuple[Path, ...]:
    """The user's folders, the first to be looked in first."""
    return tuple(Path(text) for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text)


def without_flags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words without ``--config-dir FOLDER``, ``--config-dir=FOLDER`` and ``-cd FOLDER``, and the folders.

    Raises:
        InvalidRequest: a flag has no folder.
    """
    rest: list[str] = []
    folders: list[str] = []
    left = iter(words)
    for word in left:
        flag, equals, folder = word.partition("=")
        if flag not in FLAGS:
            rest.append(word)
            continue
        folder = folder if equals else next(left, "")
        if not folder:
            raise InvalidRequest(flag, "", "has no folder", f"write {flag} FOLDER")
        folders.append(folder)
    return rest, folders


@contextmanager
def in_use(folders: Sequence[str]) -> Iterator[None]:
    """Look for configs in ``folders``, then in those of the environment variable, then in ``conf/``.

    The variable holds absolute paths meanwhile, so that child processes find the same files.

    Raises:
        InvalidRequest: a folder does not exist or has no config group.
    """
    before = os.environ.get(VARIABLE)
    named = [("--config-dir", folder) for folder in folders]
    named += [(VARIABLE, folder) for folder in (before or "").split(os.pathsep) if folder]
    found = list(dict.fromkeys(_checked(name, folder) for name, folder in named))
    if not found:
        yield
        return
    os.environ[VARIABLE] = os.pathsep.join(found)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def _checked(name: str, text: str) -> str:
    """The absolute path of a folder with config groups."""
    remedy = f"use a folder with one of the folders {', '.join(GROUPS)} inside"
    folder = Path(path_of(name, text))
    try:
        groups = [path for path in folder.iterdir() if path.is_dir()]
        found = any(path.name in GROUPS or any(path.glob("*.yaml")) for path in groups)
    except NotADirectoryError:
        raise InvalidRequest(name, text, "is not a folder", remedy) from None
    except FileNotFoundError:
        raise InvalidRequest(name, text, "does not exist", remedy) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidRequest(name, text, f"cannot be read ({reason})", remedy) from None
    if not found:
        raise InvalidRequest(name, text, "has no config group", remedy)
    absolute = os.path.abspath(folder)
    if os.pathsep in absolute:
        raise InvalidRequest(name, text, f"has a {os.pathsep} in its path", "rename the folder or link to it")
    return absolute

"""What a process of the command line does before anything else: the path of its modules, and UTF-8.

It imports only what Python itself has loaded by then.
"""

import os
import sys
import warnings


def keep_current_folder_off_path() -> None:
    """Undo what ``python -m`` did: with the current folder first on the path, a ``json.py`` there hides the library's.

    A checkout that is the current folder stays: these packages are found there.
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        current = os.getcwd()
    except OSError:
        return  # deleted: Python has put nothing on the path
    if not sys.flags.safe_path and sys.path[:1] == [current] and current != root:
        del sys.path[0]


def restart_in_utf8() -> None:
    """Start again in Python's UTF-8 mode where names of files could hold ASCII only (``LC_ALL=C PYTHONUTF8=0``).

    A model's or a folder's name is text everywhere, and its file has the same name on every machine.
    """
    if sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode and sys.orig_argv[1:]:
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def let_warnings_be_warnings() -> None:
    """``PYTHONWARNINGS=error`` is for one's own code: here, a library's deprecation would end a sweep."""
    if any(option.startswith("error") for option in sys.warnoptions):
        warnings.simplefilter("default")


def has_current_folder() -> bool:
    """Whether the current folder still exists; relative paths mean nothing without."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True

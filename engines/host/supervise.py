"""Runs a command, and kills it with all that it started as soon as this process's stdin closes.

Started as a script in a session of its own, so that the command dies with the process that holds the other end of
stdin, whatever kills that one. It imports nothing of this package, so that it starts from any folder.
"""

import os
import signal
import subprocess
import sys
import threading


def main(words: list[str]) -> int:
    """Run ``words``; returns its exit code, or 128 + the number of the signal that killed it."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    code = subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
    return code if code >= 0 else 128 - code


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    # A normal exit would wait for the thread that still reads stdin.
    os._exit(main(sys.argv[1:]))

"""Runs a command, and ends it with all that it started as soon as this process's stdin ends.

Started as a script, in a session of its own: whoever holds the other end of stdin need only die, by whatever signal.
It imports nothing of this package, so that it starts from any folder.
"""

import os
import signal
import subprocess
import sys
import threading


def main(words: list[str]) -> int:
    """Run ``words``; returns its exit code, 128 + the signal's number where one ended it."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    code = subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
    return code if code >= 0 else 128 - code


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    # The watching thread still holds stdin, which the interpreter would wait for on its way out.
    os._exit(main(sys.argv[1:]))

"""Makes a temporary folder, prints its path, and removes it with all that it holds as soon as stdin closes.

Started as a script by :class:`engines.host.scratch.ScratchFolder`: the folder goes when the process that uses it ends,
whatever ends that one. It imports nothing of this package, so that it starts from any folder.
"""

import os
import shutil
import signal
import sys
import tempfile
import time

ATTEMPTS = 100
ATTEMPT_INTERVAL_S = 0.1
"""A process that is just being killed may still write into the folder while it is removed."""


def main(parent: str, prefix: str) -> int:
    """Keep a folder inside ``parent``; returns 1 if it cannot be made."""
    for asked in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(asked, signal.SIG_IGN)  # its user is asked too, and ends: that is when the folder goes
    try:
        folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
    except OSError as error:
        print(error.strerror, file=sys.stderr)
        return 1
    try:
        sys.stdout.buffer.write(os.fsencode(folder) + b"\n")
        sys.stdout.buffer.flush()
        sys.stdin.buffer.read()
    finally:
        for _ in range(ATTEMPTS):
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(ATTEMPT_INTERVAL_S)
    return 0


if __name__ == "__main__":
    # Without the interpreter's own exit, which would complain where stdout's reader has gone.
    os._exit(main(*sys.argv[1:]))

"""An engine whose every point does what its batch size says, so that the harness can be tested for what goes wrong.

Each point that it starts is written down in the file ``log`` as ``<pid> <batch size>``.
"""

import os
import signal
import time
from pathlib import Path

from engines.engine import Facts, Stage, Verification
from engines.errors import OutOfMemory, Unsupported

CRASH, KILLED, HANG, OOM, UNSUPPORTED, BUG, WRONG, NO_LIBRARY = 101, 102, 103, 104, 105, 106, 107, 108


class ScriptedProgram:
    def __init__(self, point, pause_s):
        self.compile_s = 0.25
        self.stages = (Stage("decode", lambda: time.sleep(pause_s)),)
        self._point = point

    def verify(self):
        wrong = self._point.batch_size == WRONG
        error = 0.5 if wrong else 1e-7
        return Verification(ok=not wrong, max_relative_error=error, tolerance=1e-5, against="the script")

    def facts(self):
        return Facts(resolved={"ffn_layout": "ws_1d"}, peak_flops_per_s=1e12, peak_source="the script")

    def close(self):
        pass


class ScriptedEngine:
    name = "scripted"
    source = "measured"
    code = ("published",)

    def __init__(self, log, pause_s=0.001, **_settings):
        self._log = Path(log)
        self._pause_s = pause_s

    def prepare(self, point):
        with self._log.open("a") as log:
            log.write(f"{os.getpid()} {point.batch_size}\n")
        match point.batch_size:
            case 101:
                os._exit(7)
            case 102:
                os.kill(os.getpid(), signal.SIGKILL)
            case 103:
                time.sleep(3600)
            case 104:
                raise OutOfMemory("needs 3 GB more than a chip has")
            case 105:
                raise Unsupported("cannot do this")
            case 106:
                raise ZeroDivisionError("a bug\nof two lines")
            case 108:
                import no_such_library  # noqa: F401
        return ScriptedProgram(point, self._pause_s)

"""An engine whose every point does what its batch size says, so that the harness can be tested for what goes wrong.

Each point that it starts is written down in the file ``log`` as ``<pid> <batch size>``. What it runs is what the file
``program`` beside it says; each point that it is asked of is written down in ``asked``.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from engines.core.engine import Facts, Runner, Stage, Verification
from engines.core.errors import OutOfMemory, Unsupported

CRASH, KILLED, HANG, OOM, UNSUPPORTED, BUG, WRONG, NO_LIBRARY = range(101, 109)
GROWS, STARTS_ONE, LEAVES, LEAVES_TOO, CORES, BARRED, ENDS_WHEN_ASKED = range(109, 116)
HELD = []


class ScriptedProgram:
    def __init__(self, point, pause_s, program_id):
        self.program_id = program_id
        self.compile_s = 0.25
        self.stages = (Stage("decode", lambda: time.sleep(pause_s)),)
        self._point = point

    def verify(self):
        wrong = self._point.batch_size == WRONG
        error = 0.5 if wrong else 1e-7
        return Verification(ok=not wrong, max_relative_error=error, tolerance=1e-5, against="the script")

    def facts(self):
        return Facts(
            program_id=self.program_id,
            resolved={"ffn_layout": "ws_1d"},
            peak_flops_per_s=1e12,
            peak_source="the script",
        )

    def close(self):
        pass


class ScriptedEngine(Runner):
    name = "scripted"
    source = "measured"
    code = ("published",)

    @property
    def decided_by_source(self):
        """False once a test says what the program is: the harness then asks for it."""
        return not self._log.with_name("program").exists()

    def program_id(self, point):
        with self._log.with_name("asked").open("a") as asked:
            asked.write(f"{os.getpid()} {point.batch_size}\n")
        if point.batch_size == ENDS_WHEN_ASKED:
            os._exit(7)
        return self._program(point)

    def _program(self, point):
        program = self._log.with_name("program")
        return f"{program.read_text() if program.exists() else 'one'} {point.batch_size}"

    def __init__(self, log, pause_s=0.001, takes_bytes=0, **_settings):
        self._log = Path(log)
        self._pause_s = pause_s
        self._takes_bytes = takes_bytes

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
            case 109:
                HELD.append(b"1" * self._takes_bytes)
                time.sleep(3600)
            case 110:
                words = [sys.executable, "-c", f"held = b'1' * {self._takes_bytes}; import time; time.sleep(3600)"]
                child = subprocess.Popen(words)
                with self._log.open("a") as log:
                    log.write(f"{child.pid} 0\n")
                child.wait()
            case 111 | 112:
                HELD.append(b"1" * self._takes_bytes)
                # A second one is too much, and stays until that is seen; one alone is left time to be looked at.
                time.sleep(3600 if len(HELD) > 1 else 0.5)
            case 113:
                count = "import os; print(len(os.sched_getaffinity(0)))"
                started = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True)
                with self._log.open("a") as log:
                    log.write(f"{os.getpid()} {-len(os.sched_getaffinity(0))}\n")
                    log.write(f"{os.getpid()} {-int(started.stdout)}\n")
            case 114:
                while self._log.with_name("barred").exists():
                    time.sleep(0.02)
        return ScriptedProgram(point, self._pause_s, self._program(point))

"""What a row says of a worker that died: its last line, if that is a reason."""

import io
import signal

import pytest

from bench.run.child import _exit_reason

STUB = b"""WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795451395.867075   24623 cudart_stub.cc:31] Could not find cuda drivers on your machine
W0000 00:00:1795451395.867075   24623 service.cc:31] something mild
"""


@pytest.mark.parametrize(
    ("code", "written", "told"),
    [
        (-signal.SIGKILL, STUB, "the worker was killed by SIGKILL, which the kernel sends when memory runs out"),
        (-signal.SIGSEGV, b"", "the worker was killed by SIGSEGV"),
        (1, b"ValueError: no\n" + STUB, "the worker ended with exit code 1: ValueError: no"),
        (
            134,
            b"F0000 00:00:17 1 x.cc:1] Check failed\n@ 0x1 main\n",
            "exit code 134: F0000 00:00:17 1 x.cc:1] Check failed",
        ),
    ],
)
def test_what_libraries_log_is_no_reason(code, written, told):
    assert _exit_reason(code, io.BytesIO(written)).endswith(told)

"""A worker that is forked from this process, which has loaded everything, in place of a Python started anew.

It is what ``bench.run.child`` starts and talks to otherwise: a process that leads a session, with the same protocol.
"""

import os
import signal
import subprocess
import sys


class ForkedWorker:
    """As ``subprocess.Popen(words, stdin=PIPE, …)`` of a worker."""

    def __init__(self, words, *, stdin, stdout, stderr, pass_fds, env, start_new_session):
        assert stdin == subprocess.PIPE
        assert start_new_session
        assert words[-2:] == ["bench.run.worker", str(pass_fds[0])]
        reader, writer = os.pipe()
        began, leads = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(writer)
            self._work(reader, stderr.fileno(), pass_fds[0], env, leads)
        os.close(reader)
        os.close(leads)
        os.read(began, 1)  # as Popen, which returns once the new program runs, in its session
        os.close(began)
        self.stdin = os.fdopen(writer, "wb")
        self.returncode = None

    def _work(self, stdin, stderr, messages, env, leads):
        """All of the child."""
        from bench.run import worker

        code = 1
        try:
            os.setsid()
            os.close(leads)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.environ.update(env)
            for number, target in ((stdin, 0), (stderr, 1), (stderr, 2)):
                os.dup2(number, target)
            sys.stdin = os.fdopen(0, closefd=False)
            worker.main(messages)
            code = 0
        finally:
            os._exit(code)

    def wait(self):
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

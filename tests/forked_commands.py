"""Command lines forked from one process that has imported what they import, rather than each importing it.

A command is a process of its own all the same, with a folder, an environment and files of its own; ``bench.cli.main``
runs in it as ``python -m`` runs it. Where it would start otherwise than this process did, it is started anew: its
environment says something else to the interpreter, or Python files lie in its folder, where imports look first.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

MAIN = "bench.cli.main"
IMPORTED = (
    *("bench.cli.commands.run", "bench.run.launch", "bench.run.runner"),
    *(f"engines.{name}.engine" for name in ("analytic", "compiled", "jax", "torch")),
)
STARTS = ("PYTHON", "LC_", "LANG")
"""Beginnings of the names of variables that an interpreter reads when it starts."""


def run(words, folder, env):
    """As ``subprocess.run(…, capture_output=True, text=True)`` of the command line ``words``."""
    if not starts_alike(folder, env):
        return subprocess.run(
            [sys.executable, "-m", MAIN, *words], cwd=folder, env=env, capture_output=True, text=True, check=False
        )
    with contextlib.ExitStack() as stack:
        out, err = (stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(2))
        code = _answer(_server(), words, folder, env, out, err)
        printed = []
        for file in (out, err):
            file.seek(0)
            printed.append(file.read())
        return subprocess.CompletedProcess([MAIN, *words], code, *printed)


def starts_alike(folder, env):
    """Whether an interpreter that starts there does so as the server did."""

    def read_at_start(variables):
        return {name: variables[name] for name in variables if name.startswith(STARTS) and name != "PYTHONPATH"}

    return read_at_start(env) == read_at_start(os.environ) and not any(Path(folder).glob("*.py"))


def _answer(server, words, folder, env, out, err):
    """The exit code of the command, as ``subprocess`` tells it."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            socket.send_fds(server, [b"."], [each.fileno() for each in (theirs, out, err)])
        ours.sendall(json.dumps({"words": words, "folder": str(folder), "env": env}).encode())
        ours.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as answer:
            return int(answer.read())


@functools.cache
def _server():
    """A socket of the server, which ends with this process."""
    ours, theirs = socket.socketpair()
    with theirs:
        words = [sys.executable, __file__, str(theirs.fileno())]
        subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return ours


def serve(asked):
    """Fork what is asked for, and a process that waits for it, until nobody can ask; a command returns its words."""
    for name in IMPORTED:
        importlib.import_module(name)
    assert MAIN not in sys.modules
    gc.freeze()
    while True:
        message, files, *_ = socket.recv_fds(asked, 1, 3)
        if not message:
            return None
        if os.fork() == 0:
            asked.close()
            if (words := _wait_or_work(*files)) is not None:
                return words
            os._exit(0)
        for each in files:
            os.close(each)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _wait_or_work(asker, out, err):
    """None in the process that waits, once it has told the exit code; the words of the command in that of its own."""
    with socket.socket(fileno=asker) as answer:
        with answer.makefile("rb") as asked:
            request = json.loads(asked.read())
        if pid := os.fork():
            answer.sendall(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
            return None
    for file, number in ((out, 1), (err, 2)):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    found = [path for path in request["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [request["folder"], *found, *(path for path in sys.path[1:] if path not in found)]
    importlib.invalidate_caches()
    return request["words"]


def main():
    words = serve(socket.socket(fileno=int(sys.argv[1])))
    if words is not None:
        sys.argv, sys.orig_argv = [MAIN, *words], [sys.executable, "-m", MAIN, *words]
        runpy.run_module(MAIN, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

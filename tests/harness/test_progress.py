"""The progress: a bar on a terminal, a line now and then in a log."""

import os
import pty
import subprocess
from types import SimpleNamespace

from builders.rows import a_row

from bench.run import progress


def run_in_terminal(shardbench, words):
    """stdout, and what a terminal on stderr received."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        shardbench.words(*words), cwd=shardbench.folder, env=shardbench.env, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while chunk := read(ours):
            shown += chunk
        stdout = process.stdout.read()
    os.close(ours)
    return stdout.decode(), shown.decode()


def read(descriptor):
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other side of the terminal is closed
        return b""


def test_a_terminal_sees_done_failed_left_and_time_to_go(shardbench):
    words = shardbench.scripted("batch_size=[1,101,2]", "print=json", "+engine.pause_s=0.03")
    stdout, shown = run_in_terminal(shardbench, words)
    assert len(stdout.splitlines()) == 3
    assert "/3" in shown
    assert "1 failed" in shown
    assert "left" in shown
    assert "time to go not known yet" in shown
    assert "s to go" in shown


def test_a_pipe_sees_none(shardbench):
    done = shardbench(*shardbench.scripted("batch_size=[1,2]", "print=json"))
    assert "left" not in done.stderr
    assert "\x1b" not in done.stderr


def test_a_log_gets_a_line_now_and_then(monkeypatch, capfd):
    """By a clock that leaps 12 seconds with every row."""
    now = iter(range(0, 10_000, 12))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    for how, lines in (
        ("table", ["3 of 8 points, 1 failed", "6 of 8 points, 2 failed"]),
        ("json", ["3 of 8 points, 1 failed", "6 of 8 points, 2 failed"]),
        ("none", []),
    ):
        clock = [next(now)]
        with progress.Output(how, 8) as output:
            for number in range(8):
                clock[0] = next(now)
                output.show(a_row(status="failed" if number % 3 == 2 else "ok"), new=True)
        assert capfd.readouterr().err.splitlines() == lines

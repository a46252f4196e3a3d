"""The progress bar: on a terminal, and only there."""

import os
import pty
import subprocess


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
    assert "0:00:0" in shown or "-:--:--" in shown


def test_a_pipe_sees_none(shardbench):
    done = shardbench(*shardbench.scripted("batch_size=[1,2]", "print=json"))
    assert "left" not in done.stderr
    assert "\x1b" not in done.stderr

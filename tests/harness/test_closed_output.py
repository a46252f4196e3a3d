"""Whatever becomes of what is printed: every point is stored, and the exit code is that of the points."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from bench.cli import streams

pytestmark = pytest.mark.slow

FULL = Path("/dev/full")
PREDICTED = ["run", "model=palm-8b", "hw=tpu-v4", "num_chips=8", "engine=analytic", "phase=decode", "output_len=2"]
GRID = [*PREDICTED, "batch_size=[8,16,32]", "input_len=[8,16]", "wandb.mode=disabled"]
POINTS = 6


def in_shell(shardbench, line, *words):
    """The exit code of a line of shell in which ``"$@"`` is the command, its stdout and its stderr."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "bash", *shardbench.words(*words)],
        cwd=shardbench.folder,
        env=shardbench.env,
        capture_output=True,
        text=True,
        check=False,
    )


LINES = (
    '"$@" 2>&1 | true',
    '"$@" >&-',
    '"$@" | head -1',
    '"$@" | true',
    '"$@" 2>&-',
    '"$@" <&-',
    '"$@" >&- 2>&- <&-',
    '"$@" >/dev/null 2>/dev/null',
    'trap "" PIPE; "$@" | true',
)
"""Each with rows as JSON, which is most of what is printed; the first two with a table and with nothing as well."""


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize(("line", "how"), [*((line, "json") for line in LINES), *product(LINES[:2], ("table", "none"))])
def test_every_point_is_stored_and_counts(shardbench, line, how):
    done = in_shell(shardbench, line, *GRID, f"print={how}")
    assert done.returncode == 0, done.stderr
    assert len(shardbench.stored()) == POINTS
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_a_sweep_says_once_that_it_goes_on(shardbench):
    """A new process a point, so that the reader has long gone when the last row is printed."""
    done = in_shell(shardbench, '"$@" | head -1', *shardbench.scripted("batch_size=[1,101,2,105,3]", "print=json"))
    assert done.returncode == 3  # as 101 fails
    assert len(done.stdout.splitlines()) == 1
    assert sorted(row["batch_size"] for row in shardbench.stored()) == [1, 2, 3, 101, 105]
    assert done.stderr.count("its reader has gone") == 1
    assert done.stderr.splitlines()[-1].startswith("5 points")


@pytest.mark.skipif(not FULL.exists(), reason="Linux has /dev/full")
def test_a_full_disk_loses_no_row_and_is_no_success(shardbench):
    done = in_shell(shardbench, '"$@" >/dev/full', *GRID, "print=json")
    assert done.returncode == 2
    assert len(shardbench.stored()) == POINTS
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert in_shell(shardbench, '"$@" 2>/dev/full', *GRID, "print=json", "resume=false").returncode == 0
    assert in_shell(shardbench, '"$@" >/dev/full', "--help").returncode == 2


def test_a_command_that_only_prints_ends_in_silence(shardbench):
    shardbench(*GRID, "print=none")
    for words in (["results", "list"], ["results", "export", "format=csv"], ["--help"], ["env"]):
        done = in_shell(shardbench, '"$@" | true', *words)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "gr??er?"), ("ascii:strict", "gr??er?"), ("latin-1", "größer?")]
)
def test_what_a_stream_cannot_show_is_replaced(shardbench, encoding, shown):
    (shardbench.folder / "größer…").mkdir(exist_ok=True)
    done = subprocess.run(
        shardbench.words("results", "list", "results_dir=größer…"),
        cwd=shardbench.folder,
        env=shardbench.env | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode(encoding.partition(":")[0]) == f"0 rows in {shown}\n"


def test_a_slow_reader_of_a_stream_that_does_not_block_gets_all(tmp_path):
    """Another process may have made stdout non-blocking, as Node does to its terminal."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    code = "import sys; from bench.cli.streams import prepare; prepare(); print('1234567' * 100_000)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs) as process:
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            assert len(pipe.read()) == 700_001
    assert process.returncode == 0


def test_a_closed_stream_is_not_the_next_file(tmp_path):
    """Descriptor 1 is free where stdout is closed: the next file to be opened would take it, and what is printed."""
    code = (
        "import os, sys; from bench.cli.streams import prepare; prepare(); file = open('rows', 'w'); print('printed');"
        "file.write(str([os.fstat(each).st_rdev != 0 for each in range(3)])); assert file.fileno() > 2"
    )
    words = ["bash", "-c", '"$@" >&- 2>&- <&-', "bash", sys.executable, "-c", code]
    subprocess.run(words, cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "rows").read_text().lower()) == [True, True, True]


def test_what_is_no_file_stays_as_it_is(capsys):
    assert streams.prepare().problem is None
    print("seen")
    assert capsys.readouterr().out == "seen\n"


def test_what_native_code_prints_is_not_on_stdout():
    noisy = (
        "import ctypes\n"
        "from engines.host.native_output import on_stderr\n"
        "print('before')\n"
        "with on_stderr():\n"
        "    ctypes.CDLL(None).puts(b'a solver says')\n"
        "print('after')\n"
    )
    ended = subprocess.run([sys.executable, "-c", noisy], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["before", "after"]
    assert ended.stderr.strip() == "a solver says"

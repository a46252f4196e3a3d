"""Temporary folders and new files, where nothing goes wrong and where something does."""

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import wait_for

from bench.rows.atomic import replaced
from engines.compiled.compile.cache import Cache, CompiledProgram
from engines.core.errors import ShardbenchError
from engines.host import whole_file
from engines.host.held_back import SIGNALS, signals_held
from engines.host.python import environment
from engines.host.scratch import ScratchFolder, scratch_file, temporary_place
from engines.host.whole_file import write_whole


def test_a_folder_is_there_until_it_is_closed(tmp_path):
    with ScratchFolder(tmp_path) as folder:
        assert folder.parent == tmp_path
        (folder / "inside").mkdir()
        (folder / "inside" / "file").write_text("held")
    assert list(tmp_path.iterdir()) == []


def test_two_folders_are_two(tmp_path):
    with ScratchFolder(tmp_path) as first, ScratchFolder(tmp_path) as second:
        assert first != second
        (first / "same").touch()
        assert not (second / "same").exists()


@pytest.mark.parametrize("asked", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_goes_with_its_user_however_that_ends(tmp_path, asked):
    code = (
        "import pathlib, signal, sys, time; from engines.host.scratch import ScratchFolder\n"
        f"{asked} != signal.SIGKILL and signal.signal({asked}, signal.SIG_DFL)\n"  # a parent may have ignored it
        "scratch = ScratchFolder(pathlib.Path(sys.argv[1])); (scratch.path / 'file').touch()\n"
        "print(flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as user:
        user.stdout.readline()
        assert len(list(tmp_path.glob("*/file"))) == 1
        user.send_signal(asked)
    wait_for(lambda: not list(tmp_path.iterdir()))


def test_what_a_killed_session_of_tests_left_is_gone(tmp_path):
    code = (
        "import tempfile, time; from temporary import keep_in_one_folder\n"
        "kept = keep_in_one_folder(); tempfile.mkdtemp(); print(flush=True); time.sleep(600)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as session:
        session.stdout.readline()
        assert len(list(tmp_path.glob("shardbench-tests-*/*"))) == 1
        session.kill()
    wait_for(lambda: not list(tmp_path.iterdir()))


def test_where_no_folder_can_be_made_is_one_sentence(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ShardbenchError, match=r"file: no folder can be made there .*; .*TMPDIR"):
        ScratchFolder(file)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._get_default_tempdir", lambda: (_ for _ in ()).throw(FileNotFoundError()))
    with pytest.raises(ShardbenchError, match="no folder for temporary files can be written"):
        temporary_place()
    monkeypatch.setattr("tempfile.tempdir", str(file))
    with pytest.raises(ShardbenchError, match="no temporary file can be made there"):
        scratch_file()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=1 << 16), flush=st.booleans(), unnamed=st.booleans())
def test_a_file_is_what_was_written_and_nothing_lies_beside_it(tmp_path_factory, monkeypatch, content, flush, unnamed):
    folder = tmp_path_factory.mktemp("folder")
    with pytest.MonkeyPatch.context() as patch:
        if not unnamed:  # as on a file system that has no files without a name
            patch.setattr(whole_file, "_write_unnamed", lambda *_, **__: False)
        write_whole(folder / "file", content, folder / "file.tmp", flush=flush)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"file": content}
    mask = os.umask(0)
    os.umask(mask)
    assert (folder / "file").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_file_that_cannot_be_written_is_not_there(tmp_path, monkeypatch, unnamed):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    if not unnamed:
        monkeypatch.setattr(whole_file, "_write_unnamed", lambda *_, **__: False)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "file", b"content", tmp_path / "file.tmp", flush=True)
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_stays_a_pipe_and_gets_the_content(tmp_path):
    """As ``out=/dev/null``, which must not become a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        with replaced(pipe) as out:
            out.write_text("content")
        assert reader.stdout.read() == b"content"
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_cache_without_a_home_or_a_folder_costs_no_point(tmp_path, monkeypatch):
    compiled = CompiledProgram(text="HloModule", memory={"temp": 1.0}, compile_s=0.5)

    def unknown(_number):
        raise KeyError("as in a container that runs under a number")

    kept = Cache(str(tmp_path / "cache"))
    for _ in range(2):  # the second takes the place of the first
        kept.put("key", compiled)
        assert kept.get("key") == compiled
    (tmp_path / "file").touch()
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for folder in (str(tmp_path / "file" / "cache"), "~/.cache", "~nobody-at-all/cache"):
        cache = Cache(folder)
        cache.put("key", compiled)
        assert cache.get("key") is None
    assert not list(tmp_path.glob("**/*.part"))


def test_a_child_s_environment_is_ours_without_what_is_for_a_prompt(monkeypatch):
    monkeypatch.setenv("PYTHONINSPECT", "1")
    monkeypatch.setenv("PYTHONSTARTUP", "mine.py")
    monkeypatch.setenv("PYTHONWARNINGS", "error, error::DeprecationWarning,ignore:error in a message")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "mine", "", "theirs"]))
    monkeypatch.setenv("MINE", "kept")
    found = environment({"MORE": "1"})
    assert not {"PYTHONINSPECT", "PYTHONSTARTUP"} & set(found)
    assert found["PYTHONWARNINGS"] == "default,default::DeprecationWarning,ignore:error in a message"
    assert found["PYTHONPATH"] == os.pathsep.join(["mine", "theirs"])
    assert (found["MINE"], found["MORE"]) == ("kept", "1")


def test_command_lines_of_python_are_made_in_one_place():
    from engines.host.python import ROOT

    sources = [path for folder in ("bench", "engines") for path in (ROOT / folder).rglob("*.py")]
    users = {path.name for path in sources if "sys.executable" in path.read_text(encoding="utf-8")}
    assert users == {"python.py", "start.py"}  # start.py: the command line starts itself again
    makers = {path.name for path in sources if "tempfile" in path.read_text(encoding="utf-8")}
    assert makers == {"scratch.py", "keep_scratch.py", "wandb_session.py"}


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", ["start", "body", "end"])
def test_nothing_is_left_once_the_exception_of_a_signal_is_out(tmp_path, monkeypatch, asked, place):
    """Not only some time after the process has ended: who asked for the end looks at once."""

    def ask(now):
        if place == now:
            signal.raise_signal(asked)

    class Keeper(subprocess.Popen):
        def __init__(self, *words, **more):
            super().__init__(*words, **more)
            self.stdout = Output(self.stdout)

        def communicate(self, *given, **more):
            ask("end")
            return super().communicate(*given, **more)

    class Output:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def readline(self):
            wait_for(lambda: list(tmp_path.iterdir()))  # the folder is there, and its name not yet known here
            ask("start")
            return self.file.readline()

    def told(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("engines.host.scratch.subprocess.Popen", Keeper)

    def use():
        with ScratchFolder(tmp_path) as folder:
            (folder / "file").touch()
            ask("body")

    former = signal.signal(asked, told)
    try:
        with pytest.raises(KeyboardInterrupt):
            use()
    finally:
        signal.signal(asked, former)
    assert list(tmp_path.iterdir()) == []


def test_signals_wait_until_what_they_would_cut_is_done():
    """Each is passed on once, to who had it before."""
    told = []
    former = [signal.signal(number, lambda number, _: told.append(number)) for number in SIGNALS]
    try:
        with signals_held():
            with signals_held():
                for number in (*SIGNALS, *SIGNALS):
                    signal.raise_signal(number)
            assert told == []
        assert told == list(SIGNALS)
        signal.raise_signal(signal.SIGTERM)
        assert told == [*SIGNALS, signal.SIGTERM]
    finally:
        for number, handler in zip(SIGNALS, former, strict=True):
            signal.signal(number, handler)

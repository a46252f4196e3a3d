"""Which GPUs a machine has, and what becomes of a program that is run on it."""

import dataclasses
import sys

import pytest
from a_point import point
from processes import PATIENCE_S, wait_until_gone

from bench.sweep.catalog import hw_of, load_chip, names
from bench.sweep.hw_here import hw_here
from engines.core.errors import OutOfMemory, TimedOut, Unsupported
from engines.host.nvidia import check_present
from engines.host.program import ExternalProgram, ProgramFailed


def pids(folder):
    return [int(path.read_text(encoding="utf-8")) for path in folder.glob("pid-*")]


def test_every_chip_is_found_by_its_device_names_and_no_other_is():
    for hw in names("hw"):
        assert all(hw_of(name) == hw for name in load_chip(hw).device_names)
        assert bool(load_chip(hw).device_names) == (hw != "cpu")


def test_boards_and_slices_with_other_figures_are_other_hardware():
    for name in ("NVIDIA A100-PCIE-40GB", "NVIDIA GH200 144G HBM3e", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", ""):
        assert hw_of(name) is None
    check_present(load_chip("h200"), ["NVIDIA H200"] * 2)
    with pytest.raises(Unsupported, match="which has 2 × NVIDIA B200"):
        check_present(load_chip("h200"), ["NVIDIA H200", "NVIDIA B200"])


@pytest.mark.parametrize(
    ("stated", "found", "refused"),
    [
        (None, "[N/A], [N/A]", None),
        (None, "400.00, 400.00", None),
        (None, "300.00, 400.00", "its power limit is 300 of 400 W; add hw.power_limit_w=300"),
        (300, "300.00, 400.00", None),
        (300.0, "300.40, 400.00", None),
        (300, "400.00, 400.00", "hw.power_limit_w=300: nvidia-smi says 400 W"),
        (300, "[N/A], [N/A]", "hw.power_limit_w=300: nvidia-smi tells no power limit"),
    ],
)
def test_a_gpu_is_measured_under_the_power_limit_that_the_row_states(faster, monkeypatch, stated, found, refused):
    monkeypatch.setenv("STAND_IN_POWER", found)
    chip = dataclasses.replace(load_chip("a100-80gb"), power_limit_w=stated)
    [answer] = faster().estimate([dataclasses.replace(point(), chip=chip)])
    assert (answer.status, answer.error) == ("ok", None) if refused is None else answer.status == "unsupported"
    assert refused is None or refused in answer.error


def test_what_a_program_leaves_behind_is_ended_with_it(tmp_path):
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid)"
    output = ExternalProgram([sys.executable, "-c", script], tmp_path, PATIENCE_S).run()
    wait_until_gone(int(output))


def test_a_program_that_a_signal_ends_or_that_ignores_signals(tmp_path, time_is_up_once):
    program = ExternalProgram([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"], tmp_path, PATIENCE_S)
    with pytest.raises(ProgramFailed, match="exit code 139 and printed nothing"):
        program.run()
    logs = "echo 'I0000 00:00:1 3 a.cc:1] no driver'; echo ValueError: no; echo 'W0000 00:00:1 3 b.cc:1] mild'; exit 3"
    with pytest.raises(ProgramFailed, match=r"exit code 3; its output ends with: ValueError: no$"):
        dataclasses.replace(program, words=["sh", "-c", logs]).run()
    with pytest.raises(OutOfMemory):
        dataclasses.replace(program, words=["sh", "-c", "echo CUDA Out Of Memory; exit 3"]).run()
    assert dataclasses.replace(program, words=["sh", "-c", "echo no word of out of memory"]).run()
    with pytest.raises(Unsupported, match="no-such-program is not installed"):
        dataclasses.replace(program, words=["no-such-program"]).run()
    deaf = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\n"
        "pathlib.Path('said').touch(); time.sleep(600)"
    )
    time_is_up_once((tmp_path / "said").exists)
    with pytest.raises(TimedOut, match="output ends with: deaf"):
        dataclasses.replace(program, words=[sys.executable, "-c", deaf]).run()


@pytest.mark.parametrize(("names", "hw"), [("NVIDIA H200,NVIDIA H200", "h200"), ("NVIDIA B200", "b200")])
def test_the_gpu_here_has_a_datasheet(program, monkeypatch, names, hw):
    monkeypatch.setenv("STAND_IN_GPUS", names)
    assert hw_here(program("nvidia_smi")) == hw


@pytest.mark.parametrize("names", ["", "NVIDIA H200,NVIDIA B200", "NVIDIA A100-PCIE-40GB"])
def test_no_datasheet_is_taken_for_another_gpus(program, monkeypatch, names):
    monkeypatch.setenv("STAND_IN_GPUS", names)
    with pytest.raises(Unsupported, match="hw=here: "):
        hw_here(program("nvidia_smi"))

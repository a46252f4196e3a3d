"""Stand-ins for programs that need a GPU: small scripts that answer, fail, hang or print garbage on demand."""

import sys
from pathlib import Path

import pytest

STAND_INS = Path(__file__).parent / "stand_ins"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Make a stand-in executable; returns its path. This machine then has eight A100s for nvidia-smi's stand-in."""
    monkeypatch.setenv("STAND_IN_GPUS", ",".join(["NVIDIA A100-SXM4-80GB"] * 8))

    def make(name):
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\n" + (STAND_INS / f"{name}.py").read_text(encoding="utf-8"), "utf-8")
        path.chmod(0o755)
        return str(path)

    return make

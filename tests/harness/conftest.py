import json
import os
import subprocess
import sys
from pathlib import Path

import forked_commands
import pytest

from bench.cli.main import main

HERE = Path(__file__).parent


class Shardbench:
    """The command line in a folder of its own, as a user has it: real processes, real files."""

    def __init__(self, folder):
        self.folder = folder
        self.results = folder / "results"
        self.log = folder / "log"

    def words(self, *words):
        return [sys.executable, "-m", "bench.cli.main", *words]

    def __call__(self, *words, env=None, code=0):
        done = forked_commands.run(words, self.folder, self.env | (env or {}))
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def here(self, monkeypatch, *words):
        """The exit code of the same in this process, in an environment as a process of its own would have."""
        monkeypatch.chdir(self.folder)
        for name, value in self.env.items():
            monkeypatch.setenv(name, value)
        return main([*words])

    def start(self, *words):
        return subprocess.Popen(
            self.words(*words), cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    @property
    def env(self):
        # An empty entry is the current folder.
        path = os.pathsep.join(filter(None, [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")]))
        return {**os.environ, "PYTHONPATH": path, "WANDB_MODE": "disabled"}

    def scripted(self, *words):
        """Words that make ``engine`` the scripted one, with timing that takes no time."""
        return [
            "run",
            "model=tiny",
            "hw=cpu",
            "num_chips=8",
            "engine=jax",
            "engine._target_=scripted_engine.ScriptedEngine",
            f"+engine.log={self.log}",
            "engine.timeout_s=60",
            "timing.min_time_s=0",
            "wandb.mode=disabled",
            "input_len=16",
            "output_len=4",
            *words,
        ]

    def rows(self, done):
        return [json.loads(line) for line in done.stdout.splitlines()]

    def stored(self):
        lines = [line for part in sorted(self.results.glob("rows/*.jsonl")) for line in part.read_text().splitlines()]
        return [json.loads(line) for line in lines]

    def executed(self):
        """(pid, batch size) of every point that the scripted engine started."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [tuple(map(int, line.split())) for line in lines]


@pytest.fixture
def shardbench(tmp_path):
    return Shardbench(tmp_path)

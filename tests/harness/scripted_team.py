"""A scripted engine of two processes, which meet in a folder."""

import pickle
import time
from pathlib import Path

from scripted_engine import ScriptedEngine

from engines.core.engine import JobProcess


class FolderTeam:
    """Each value is a file; a process has the others' once all have written theirs."""

    def __init__(self, folder, process):
        self.process = process
        self._folder, self._step = Path(folder), 0

    def exchange(self, value):
        self._step += 1
        own = self._folder / f"{self._step}-{self.process.index}"
        assert not own.exists(), "this process has left the team before"
        own.with_suffix(".part").write_bytes(pickle.dumps(value))
        own.with_suffix(".part").rename(own)
        paths = [self._folder / f"{self._step}-{index}" for index in range(self.process.count)]
        while not all(path.exists() for path in paths):
            time.sleep(0.01)
        return [pickle.loads(path.read_bytes()) for path in paths]

    def leave(self):
        self.exchange(None)


class ScriptedTeamEngine(ScriptedEngine):
    def __init__(self, log, meet, process_id, **settings):
        super().__init__(log, **settings)
        self._meet, self._process = meet, JobProcess(process_id, 2)

    def process(self):
        return self._process

    def join(self):
        return FolderTeam(self._meet, self._process)

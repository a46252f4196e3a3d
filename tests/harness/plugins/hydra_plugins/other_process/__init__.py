"""A launcher that runs each job in a process of its own, and a sweeper that keeps what gave the smallest objective.

To a job they are what hydra-joblib-launcher and hydra-optuna-sweeper are: another process that gets the task pickled,
and a caller that reads what the task returns. A process whose overrides have the text DIES ends without a word.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hydra import version
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import open_dict

DIES = "dies"


class OtherProcess(Launcher):
    def setup(self, *, hydra_context, task_function, config):
        self.given = (hydra_context, task_function, config)

    def launch(self, job_overrides, initial_job_idx):
        return [self._launch(list(words), initial_job_idx + index) for index, words in enumerate(job_overrides)]

    def _launch(self, words, number):
        with tempfile.TemporaryDirectory() as folder:
            asked, answer = Path(folder, "asked"), Path(folder, "answer")
            asked.write_bytes(pickle.dumps((self.given, words, number)))
            # Hydra imports all plugins anew, so it comes before them.
            code = "import sys; from hydra.core.plugins import Plugins; Plugins.instance(); "
            code += "from hydra_plugins.other_process import work; work(*sys.argv[1:])"
            subprocess.run([sys.executable, "-c", code, str(asked), str(answer)], check=True)
            return pickle.loads(answer.read_bytes())


def work(asked, answer):
    (context, task, config), words, number = pickle.loads(Path(asked).read_bytes())
    if any(DIES in word for word in words):
        os._exit(9)
    setup_globals()
    version.setbase("1.3")
    JobRuntime.instance().set("name", config.hydra.job.name)
    job = context.config_loader.load_sweep_config(config, words)
    with open_dict(job):
        job.hydra.job.id, job.hydra.job.num = f"job_{number}", number
    done = run_job(
        hydra_context=context,
        task_function=task,
        config=job,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    Path(answer).write_bytes(pickle.dumps(done))


class Smallest(Sweeper):
    def __init__(self, out):
        self.out = out

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        parsed = OverridesParser.create().parse_overrides(arguments)
        (swept,) = [each for each in parsed if each.is_sweep_override()]
        fixed = [str(each.input_line) for each in parsed if each is not swept]
        tried = {}
        for number, value in enumerate(swept.sweep_string_iterator()):
            (done,) = self.launcher.launch([[*fixed, f"{swept.get_key_element()}={value}"]], number)
            tried[value] = done.return_value
        Path(self.out).write_text(json.dumps(tried), encoding="utf-8")


@dataclass
class OtherProcessConfig:
    _target_: str = "hydra_plugins.other_process.OtherProcess"


@dataclass
class SmallestConfig:
    _target_: str = "hydra_plugins.other_process.Smallest"
    out: str = "tried.json"


@dataclass
class GoneConfig:
    _target_: str = "hydra_plugins.other_process.Gone"


for group, name, node in (
    ("launcher", "other_process", OtherProcessConfig),
    ("launcher", "gone", GoneConfig),
    ("sweeper", "smallest", SmallestConfig),
):
    ConfigStore.instance().store(group=f"hydra/{group}", name=name, node=node, provider="tests")

"""A job of a multirun, run where a launcher has sent it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


@dataclass(frozen=True)
class Job:
    """What a process elsewhere needs to run one job; sent there with pickle."""

    context: HydraContext
    config: DictConfig
    task: TaskFunction
    words: Sequence[str]
    number: int
    state: Mapping[Any, Any]
    """Hydra's singletons, such as its list of plugins."""
    folder: str
    """Where the command was started: relative paths mean the same where this folder exists."""

    def __call__(self) -> JobReturn:
        """Run the job as Hydra's own launcher does; an exception of the task is in what it returns."""
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        setup_globals()
        Singleton.set_state(dict(self.state))
        config = self.context.config_loader.load_sweep_config(self.config, list(self.words))
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{self.number}"
            config.hydra.job.num = self.number
        HydraConfig.instance().set_config(config)
        return run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def checkpoint(self) -> Any:
        """What submitit queues again for a preempted job: the same one, which goes on from the stored rows."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def jobs(
    context: HydraContext, config: DictConfig, task: TaskFunction, overrides: Sequence[Sequence[str]], first: int
) -> list[Job]:
    """The jobs of a launcher's call, numbered from ``first``."""
    state, folder = Singleton.get_state(), os.getcwd()
    return [
        Job(context, config, task, list(words), first + index, state, folder) for index, words in enumerate(overrides)
    ]


def died(job: Job, error: Exception) -> JobReturn:
    """What a job returns whose process ended before it: whoever reads its value raises ``error``."""
    returned = JobReturn(overrides=job.words, status=JobStatus.FAILED)
    returned.return_value = error
    return returned

"""The Hydra launcher behind ``-m``: all jobs of a sweep as one run, with one progress bar and one exit code.

Every job stays isolated: an engine that runs a model gets a child process a job.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SweepLauncher(Launcher):
    """Composes every job of the sweep first, so that a wrong one stops it before anything runs."""

    run_all: Callable[[Sequence[DictConfig]], None]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives; the task takes all configs at once through its ``run_all``."""
        self._config = config
        self._context = hydra_context
        self._task: Any = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, in order."""
        setup_globals()
        loader = self._context.config_loader
        configs = [loader.load_sweep_config(self._config, list(overrides)) for overrides in job_overrides]
        self._task.run_all(configs)
        return [
            JobReturn(overrides=list(overrides), cfg=config, status=JobStatus.COMPLETED, _return_value=None)
            for overrides, config in zip(job_overrides, configs, strict=True)
        ]


def register() -> None:
    """Make ``hydra/launcher=shardbench`` known; to be called before Hydra composes."""
    Plugins.instance().register(SweepLauncher)
    ConfigStore.instance().store(
        group="hydra/launcher",
        name="shardbench",
        node={"_target_": f"{SweepLauncher.__module__}.{SweepLauncher.__qualname__}"},
        provider="shardbench",
    )

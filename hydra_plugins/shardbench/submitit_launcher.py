"""``hydra/launcher=submitit_local`` and ``submitit_slurm``: each job is a process, or a task of a SLURM array.

hydra-submitit-launcher 1.2, of 2022, raises at the first job that died and leaves the others running without anybody;
so this one, with its keys, stands on submitit itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.shardbench._job import Job, died, jobs

ANY_CLUSTER: Final = frozenset(
    {
        *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"),
        "stderr_to_stdout",
    }
)
"""Parameters that submitit has for every cluster; the others carry the cluster's name."""


class SubmititLauncher(Launcher):
    """Submits all jobs at once, and waits for all."""

    def __init__(self, cluster: str, submitit_folder: str, max_num_timeout: int = 0, **parameters: Any) -> None:
        """``cluster`` is local or slurm; ``parameters`` are submitit's, without the name of the cluster before them."""
        self._cluster = cluster
        self._folder = submitit_folder
        self._own = {f"{cluster}_max_num_timeout": max_num_timeout} if cluster == "slurm" else {}
        self._parameters = {
            name if name in ANY_CLUSTER else f"{cluster}_{name}": _plain(value)
            for name, value in parameters.items()
            if value is not None
        }
        self._jobs: Callable[[Sequence[Sequence[str]], int], list[Job]] | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the first jobs."""
        self._jobs = lambda overrides, first: jobs(hydra_context, config, task_function, overrides, first)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, and return what they returned in their order once all have ended.

        Interrupted, it cancels those that are left.
        """
        import submitit

        assert self._jobs is not None
        launched = self._jobs(job_overrides, initial_job_idx)
        executor = submitit.AutoExecutor(folder=self._folder, cluster=self._cluster, **self._own)
        executor.update_parameters(**self._parameters)
        with executor.batch():
            submitted = [executor.submit(job) for job in launched]
        try:
            return [_result(job, handle) for job, handle in zip(launched, submitted, strict=True)]
        except BaseException:
            for handle in submitted:
                handle.cancel()
            raise


def _result(job: Job, handle: Any) -> JobReturn:
    """What a job's first task returned; if it never did, the job's failure."""
    import submitit

    try:
        returned: JobReturn = handle.results()[0]
    except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError) as error:
        return died(job, error)
    return returned


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value

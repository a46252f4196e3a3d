"""``hydra/launcher=ray``: each job is a task of a Ray cluster, begun again where its worker or node dies.

hydra-ray-launcher 1.2 asks for boto3 and the first cloudpickle, and raises at the first task that fails, while the
others go on without anybody; so this one stands on Ray itself.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.shardbench._job import Job, died, jobs


class RayLauncher(Launcher):
    """Runs jobs as Ray tasks, all at once as far as the cluster has room."""

    def __init__(self, init: DictConfig, remote: DictConfig) -> None:
        """``init`` goes to ``ray.init`` and ``remote`` to ``ray.remote``, each without its nulls."""
        self._init = _given(init)
        self._remote = _given(remote)
        self._jobs: Callable[[Sequence[Sequence[str]], int], list[Job]] | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the first jobs."""
        workers = config.get("workers")
        if workers is not None and self._init.get("address", os.environ.get("RAY_ADDRESS")) is None:
            # A cluster of this command's own has room for all workers at once, whatever its cores.
            room = max(os.cpu_count() or 1, math.ceil(workers * self._remote.get("num_cpus", 1)))
            self._init.setdefault("num_cpus", room)
        self._jobs = lambda overrides, first: jobs(hydra_context, config, task_function, overrides, first)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, and return what they returned in their order once all have ended.

        A cluster that this call has started ends with it, also when it is interrupted.
        """
        import ray

        assert self._jobs is not None
        launched = self._jobs(job_overrides, initial_job_idx)
        own = not ray.is_initialized()
        if own:
            ray.init(**self._init)
        try:
            task = ray.remote(**self._remote)(_run)
            refs = [task.remote(job) for job in launched]
            return [_result(job, ref) for job, ref in zip(launched, refs, strict=True)]
        finally:
            if own:
                ray.shutdown()


def _run(job: Job) -> JobReturn:
    return job()


def _result(job: Job, ref: Any) -> JobReturn:
    """What a task returned; if it never did, its job's failure."""
    import ray

    try:
        returned: JobReturn = ray.get(ref)
    except ray.exceptions.RayError as error:
        return died(job, error)
    return returned


def _given(config: DictConfig) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(config, resolve=True)
    return {str(key): value for key, value in content.items() if value is not None}

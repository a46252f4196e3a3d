"""``hydra/sweeper=optuna``: a search over points, measured or not, by Optuna.

hydra-optuna-sweeper 1.3 works with Optuna 2 alone, of 2022. This one asks today's for trials, lets the chosen launcher
run them, and tells what each has as its objective: a trial without a finite one (a point that failed, does not fit or
is refused) is pruned.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from bench.rows.counted import counted
from engines.core.errors import InvalidRequest

SAMPLERS: Final = {"tpe": "TPESampler", "nsgaii": "NSGAIISampler", "random": "RandomSampler"}
DIRECTIONS: Final = ("minimize", "maximize")
BEST: Final = "optimization_results.yaml"
"""The file in ``hydra.sweep.dir`` with the best trials."""

MOST_ASKED: Final = 20
"""Batches asked for each trial wanted: a sampler of a small space may come back to what was tried before."""

Params = dict[str, Any]


class OptunaSweeper(Sweeper):
    """Runs trials in batches of ``n_jobs`` until there are ``n_trials``, or none is left to try."""

    def __init__(
        self,
        objective: Any,
        direction: Any,
        n_trials: int,
        n_jobs: int,
        sampler: str,
        seed: int | None,
        storage: str | None,
        study_name: str | None,
        params: Mapping[str, str] | None,
    ) -> None:
        """As in ``optuna.yaml``."""
        self._objectives = _list(objective)
        self._directions = _list(direction)
        self._n_trials, self._n_jobs = n_trials, n_jobs
        self._sampler, self._seed = sampler, seed
        self._storage, self._study_name = storage, study_name
        self._params = dict(params or {})
        self._launcher: Launcher | None = None
        self._folder = Path()
        self._launched = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the sweep."""
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self._folder = Path(str(config.hydra.sweep.dir))

    def sweep(self, arguments: list[str]) -> None:
        """Search, print the best trials on stderr, and write them to :data:`BEST`.

        Raises:
            InvalidRequest: a key of ``hydra.sweeper`` has a value that is not known, or nothing is to be searched.
        """
        import optuna

        self._check()

        words = [*(f"{key}={value}" for key, value in self._params.items()), *arguments]
        overrides = OverridesParser.create().parse_overrides(words)
        fixed = [str(each.input_line) for each in overrides if not each.is_sweep_override()]
        space = {each.get_key_element(): _distribution(each) for each in overrides if each.is_sweep_override()}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            sampler=getattr(optuna.samplers, SAMPLERS[self._sampler])(seed=self._seed),
            directions=self._directions,
            storage=self._storage,
            study_name=self._study_name,
            load_if_exists=True,
        )
        if not space:
            raise InvalidRequest("hydra/sweeper", "optuna", "has nothing to search", "give a key several values: a,b")
        known: dict[str, list[float] | None] = {}
        wanted = min(self._n_trials, _combinations(space))
        for _ in range(MOST_ASKED * self._n_trials):
            trials = [study.ask(space) for _ in range(min(self._n_jobs, int(wanted) - len(known)))]
            new = {str(trial.params): [*fixed, *_words(trial.params)] for trial in trials}
            new = {params: words for params, words in new.items() if params not in known}
            known |= self._launch(new)
            for trial in trials:
                values = known[str(trial.params)]
                pruned = None if values is not None else optuna.trial.TrialState.PRUNED
                study.tell(trial, values, state=pruned)
            if len(known) >= wanted:
                break
        self._report(study)

    def _check(self) -> None:
        for key, values, known in (
            ("sampler", [self._sampler], tuple(SAMPLERS)),
            ("direction", self._directions, DIRECTIONS),
        ):
            for value in values:
                if value not in known:
                    raise InvalidRequest(
                        f"hydra.sweeper.{key}", value, "is not known", f"use one of {', '.join(known)}"
                    )
        if len(self._directions) != len(self._objectives):
            remedy = f"use a list of {len(self._objectives)}"
            raise InvalidRequest("hydra.sweeper.direction", self._directions, "is not one for each objective", remedy)
        for key, number in (("n_trials", self._n_trials), ("n_jobs", self._n_jobs)):
            if not isinstance(number, int) or number < 1:
                raise InvalidRequest(f"hydra.sweeper.{key}", number, "must be an integer >= 1", "use 1 or more")

    def _launch(self, jobs: Mapping[str, Sequence[str]]) -> dict[str, list[float] | None]:
        """Run jobs by name; the values of their objectives, None for one without."""
        if not jobs:
            return {}
        assert self._launcher is not None
        returned = self._launcher.launch(list(jobs.values()), initial_job_idx=self._launched)
        self._launched += len(jobs)
        return {name: _values(each) for name, each in zip(jobs, returned, strict=True)}

    def _report(self, study: Any) -> None:
        done = [trial for trial in study.trials if trial.values is not None]
        best = {str(each.params): each for each in study.best_trials} if done else {}
        found = [
            {"params": each.params, **dict(zip(self._objectives, each.values, strict=True))} for each in best.values()
        ]
        self._folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create({"name": "optuna", "solutions": found}), self._folder / BEST)
        tried = {str(trial.params) for trial in study.trials}
        timed = {str(trial.params) for trial in done}
        counts = f"{counted(len(tried), 'trial')}, {len(tried - timed)} of them pruned"
        print(f"shardbench: optuna: {counts}; best in {self._folder / BEST}", file=sys.stderr)
        for each in found:
            words = " ".join(_words(each["params"]))
            values = " ".join(f"{name}={each[name]:.6g}" for name in self._objectives)
            print(f"shardbench: optuna: {values} with {words}", file=sys.stderr)


def _distribution(override: Override) -> Any:
    """Optuna's distribution of a sweep: the numbers of a range or an interval, or the choices as they are typed."""
    from optuna import distributions

    sweep: Any = override.value()
    if isinstance(sweep, IntervalSweep):
        log = "log" in sweep.tags
        ends: Sequence[Any] = (sweep.start, sweep.end)
        if all(isinstance(each, int) for each in ends):
            return distributions.IntDistribution(low=ends[0], high=ends[1], log=log)
        return distributions.FloatDistribution(low=ends[0], high=ends[1], log=log)
    if isinstance(sweep, RangeSweep):
        steps: Sequence[Any] = (sweep.start, sweep.stop, sweep.step)
        if all(isinstance(each, int) for each in steps) and (numbers := range(*steps)):
            low, high = sorted((numbers[0], numbers[-1]))
            return distributions.IntDistribution(low, high, step=abs(numbers.step))
    return distributions.CategoricalDistribution(list(override.sweep_string_iterator()))


def _combinations(space: Mapping[str, Any]) -> float:
    """How many different trials there are; infinite where a parameter is a real number."""
    counts: list[float] = []
    for each in space.values():
        if hasattr(each, "choices"):
            counts.append(len(each.choices))
        else:
            counts.append(math.inf if each.step is None else (each.high - each.low) // each.step + 1)
    return math.prod(counts)


def _values(returned: JobReturn) -> list[float] | None:
    try:
        values = _list(returned.return_value)
    except Exception as error:  # a launcher raises what it likes for a job that died
        print(f"shardbench: optuna: a trial died ({error})", file=sys.stderr)
        return None
    return values if all(math.isfinite(value) for value in values) else None


def _words(params: Params) -> list[str]:
    return [f"{name}={value}" for name, value in params.items()]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]

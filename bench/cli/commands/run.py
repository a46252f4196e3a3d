"""``shardbench run``: Hydra composes the configs, the runner evaluates their points."""

import argparse
import sys
from collections.abc import Iterator, Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from bench.rows.counted import counted
from bench.run.variables import variables_set
from bench.sweep.compose_errors import explained
from bench.sweep.composer import Composer
from bench.sweep.expand import without_repeats
from bench.sweep.help import help_of
from bench.sweep.hydra_main import call, check_plugins, flags_of, runs_here, show
from bench.sweep.overrides import Words, in_grammar, name_of
from bench.sweep.requests import carried, jobs_of, requests_of, unpacked
from engines.core.errors import InvalidRequest


def run(words: Sequence[str]) -> int:
    """Run the command line ``words``; returns the exit code.

    All configs are composed and checked before the first point runs.

    Raises:
        ShardbenchError: the request is invalid; one sentence.
    """
    typed = Words.of(words)
    flags = flags_of(typed.flags)
    composer = Composer(flags.config_path, flags.config_name or "config")
    with composer.ready():
        multirun = flags.multirun or _is_multirun(composer, flags, typed.overrides)
        overrides = in_grammar(typed.overrides, multirun=multirun)
        if flags.help and not (flags.resolve or flags.config_path or flags.config_name):
            print(help_of(composer, composer.whole(carried(overrides))))
            return 0
        if flags.help or flags.hydra_help or flags.cfg or flags.info or flags.shell_completion:
            return show(flags, carried(overrides))
        # Not before: what shows something needs none of what runs points, which takes longest to import.
        from bench.run import runner
        from bench.run.launch import launch

        config = composer.whole(carried(overrides), multirun=multirun)
        with explained(overrides):
            has_work = _hydra_has_work(config, overrides, multirun)
            variables = dict(config.hydra.job.env_set)
        if config.get("workers") is not None and (not multirun or runs_here(config)):
            remedy = "add -m and hydra/launcher=joblib, submitit_local, submitit_slurm or ray"
            raise InvalidRequest("workers", config.workers, "needs a launcher to start them", remedy)
        if multirun and not runs_here(config):
            check_plugins(config)
            return launch(composer, config, flags, overrides)
        if has_work:
            jobs = _jobs_through_hydra(flags, overrides)
        else:
            jobs = jobs_of(composer, overrides, config) if multirun else [overrides]
        requests = [request for job in _shown(jobs) for request in requests_of(composer, job)]
    requests, repeats = without_repeats(requests)
    with variables_set(variables):
        code = runner.run(requests).exit_code
    _tell(overrides, repeats)
    return code


def _is_multirun(composer: Composer, flags: argparse.Namespace, words: Sequence[str]) -> bool:
    """Whether Hydra's mode, on the command line or in a primary config of the user's own, is a multirun."""
    modes = [word.partition("=")[2].upper() for word in words if name_of(word) == "hydra.mode"]
    if modes or (flags.config_name is None and flags.config_path is None):
        return modes[-1:] == [RunMode.MULTIRUN.name]
    return bool(composer.whole((), multirun=True).hydra.mode == RunMode.MULTIRUN)


def _hydra_has_work(config: DictConfig, overrides: Sequence[str], multirun: bool) -> bool:
    """Whether Hydra itself has to do something for each job: to write its config, to log, to call back.

    Raises:
        InvalidRequest: it is asked to change the folder, which would move no row.
    """
    own = config.hydra
    if own.job.chdir:
        remedy = "use results_dir=FOLDER"
        raise InvalidRequest("hydra.job.chdir", True, "has no use, since rows go to results_dir", remedy)
    logs = [str(own.runtime.choices.get(f"hydra/{kind}")) for kind in ("job_logging", "hydra_logging")]
    folders = multirun and any(name_of(word).startswith("hydra.sweep.") for word in overrides)
    writes = own.output_subdir is not None or (not multirun and str(own.run.dir) != ".")
    return bool(folders or writes or own.callbacks or own.verbose or logs != ["disabled", "disabled"])


def _jobs_through_hydra(flags: argparse.Namespace, overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every job, as Hydra calls them one after the other."""
    jobs: list[list[str]] = []

    def collect(_config: DictConfig) -> None:
        asked = HydraConfig.get().overrides
        jobs.append(unpacked([*asked.hydra, *asked.task]))

    call(collect, flags, carried(overrides))
    return jobs


def _shown(jobs: Sequence[Sequence[str]]) -> Iterator[Sequence[str]]:
    """The jobs, with a progress bar on stderr if that is a terminal."""
    if len(jobs) == 1 or not sys.stderr.isatty():
        yield from jobs
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(jobs, "composing jobs", console=Console(stderr=True), transient=True)


def _tell(overrides: Sequence[str], repeats: int) -> None:
    """Say on stderr what of the command line counts once, or not at all."""
    last: dict[str, str] = {}
    for word in overrides:
        name = name_of(word)
        if last.get(name, word) != word:
            print(f"shardbench: {name} is given more than once; the last counts: {word}", file=sys.stderr)
        last[name] = word
    if repeats:
        print(f"shardbench: {counted(repeats, 'point')} asked more than once; each runs once", file=sys.stderr)

"""What the tests of the compiled engine share: asking it, and finding a loop in a schedule."""

import functools
from tempfile import TemporaryDirectory

from engines.compiled.engine import CompiledEngine
from engines.compiled.hlo.schedule import Kind


def ask(asked, **settings):
    """The answer to one point, and the engine that gave it.

    A program that another test of this process has compiled is not compiled again, unless ``settings`` name a cache.
    """
    engine = CompiledEngine(**{"cache_dir": _programs().name, **settings})
    (answer,) = engine.estimate([asked])
    return answer, engine


@functools.cache
def _programs():
    """A cache folder that lasts as long as this process."""
    return TemporaryDirectory(prefix="compiled-programs-")


@functools.cache
def answer_to(asked):
    """The answer to a point of which several tests read it: compiled once."""
    return ask(asked)[0]


def loop_of(schedule, turns):
    """The steps of the body of the only loop with so many turns."""
    (body,) = [
        step.called[0]
        for steps in schedule.computations.values()
        for step in steps
        if step.kind is Kind.LOOP and step.trips == turns
    ]
    return schedule.computations[body]

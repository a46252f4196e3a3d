"""What the tests of the compiled engine share: asking it, and finding a loop in a schedule."""

from engines.compiled.engine import CompiledEngine
from engines.compiled.schedule import Kind


def ask(asked, **settings):
    """The answer to one point, and the engine that gave it; nothing is kept unless ``settings`` say so."""
    engine = CompiledEngine(**{"cache_dir": "", **settings})
    (answer,) = engine.estimate([asked])
    return answer, engine


def loop_of(schedule, turns):
    """The steps of the body of the only loop with so many turns."""
    (body,) = [
        step.called[0]
        for steps in schedule.computations.values()
        for step in steps
        if step.kind is Kind.LOOP and step.trips == turns
    ]
    return schedule.computations[body]

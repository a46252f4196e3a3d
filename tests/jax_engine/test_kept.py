"""A program that points share is compiled once in a process."""

from dataclasses import replace

import pytest
from builders.points import point

from bench.run.load_engine import make_engine
from bench.sweep.catalog import load_group
from engines.jax import kept


class Lowered:
    """Counts how often it is compiled."""

    out_tree = "*"

    def __init__(self, args_info="*"):
        self.args_info = args_info
        self.times = 0

    def compile(self, options):
        self.times += 1
        return f"compiled with {options}"


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(kept, "_kept", type(kept._kept)())


def test_the_same_text_options_and_devices_are_compiled_once():
    lowered = Lowered()
    first = kept.compiled_once(lowered, "text", {"a": "b"}, (0, 1))
    assert kept.compiled_once(Lowered(), "text", {"a": "b"}, (0, 1)) is first
    assert first.compile_s >= 0
    for other in (("other", {"a": "b"}, (0, 1)), ("text", None, (0, 1)), ("text", {"a": "b"}, (0, 2))):
        again = Lowered()
        kept.compiled_once(again, *other)
        assert again.times == 1
    # One text, whose arguments are other pytrees.
    apart = Lowered("{'a': *}")
    kept.compiled_once(apart, "text", {"a": "b"}, (0, 1))
    assert (lowered.times, apart.times) == (1, 1)


def test_the_last_used_are_kept():
    for number in range(kept.MOST_KEPT):
        kept.compiled_once(Lowered(), str(number), None, ())
    kept.compiled_once(Lowered(), "0", None, ())
    kept.compiled_once(Lowered(), "new", None, ())
    used, dropped = Lowered(), Lowered()
    kept.compiled_once(used, "0", None, ())
    kept.compiled_once(dropped, "1", None, ())
    assert (used.times, dropped.times) == (0, 1)


def test_points_of_the_same_lengths_go_together():
    engine = make_engine(load_group("engine", "jax"))
    keys = {"num_chips": 8, "engine": "jax", "batch_size": 8, "input_len": 32, "output_len": 8}
    points = [point("tiny", "cpu", phase=phase, **keys) for phase in ("prefill", "decode", "generate")]
    assert len({engine.shares_programs(each) for each in points}) == 1
    other = replace(points[1], batch_size=16)
    assert engine.shares_programs(other) != engine.shares_programs(points[1])

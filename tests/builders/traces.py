"""A program's timeline that can be checked by hand."""

from engines.compiled.cost.account import Account
from engines.compiled.cost.bars import Event, Loop
from engines.compiled.cost.timeline import Timeline


def by_hand():
    """Two steps of four layers of 100 µs: 75 of matmuls (an inner loop runs 3 × 5 of them), 15 of a sum, 1 of waiting.

    A permute of 15 µs overlaps the matmul but for that 1 µs.
    """

    layers, inner = 2, 3

    def at(microseconds, lane, name, length, note, turns=8, loop=layers, **more):
        return Event(lane, name, 1e-6 * (5 + microseconds), 1e-6 * length, note, turns, loop=loop, **more)

    bars = [
        Event("compute", "before", 0.0, 5e-6, "fusion", 2, loop=1),
        at(0, "copy", "begun outside", 50, "copy-start", turns=2, loop=1, bytes=1e6),
        at(0, "compute", "weights", 60, "matmul", bytes=60e6),
        at(46, "x -", "send", 15, "collective-permute", bytes=1e6, latency_s=1e-6),
        at(60, "compute", "send", 1, "exposed"),
        at(61, "compute", "small", 9, "fusion"),
        at(70, "compute", "scores", 5, "matmul", turns=24, loop=inner),
        at(75, "compute", "the rest of the inner loop", 10, "turns", turns=0, repeats=inner),
        at(85, "compute", "sum", 15, "exposed"),
        at(85, "x +", "sum", 15, "all-reduce", bytes=1e6, latency_s=5e-6),
        at(85, "x -", "sum", 15, "all-reduce", bytes=1e6, latency_s=5e-6),
        at(100, "compute", "the rest of the layers", 300, "turns", turns=0, loop=1, repeats=layers),
        Event("compute", "after", 405e-6, 0.0, "fusion", 2, loop=1),
        Event("compute", "the other step", 405e-6, 405e-6, "turns", 0, repeats=1),
    ]
    loops = [
        Loop(index=inner, name="inner", parent=layers, turns=3, runs=8, start_s=75e-6, turn_s=5e-6),
        Loop(index=layers, name="layers", parent=1, turns=4, runs=2, start_s=5e-6, turn_s=100e-6),
        Loop(index=1, name="steps", parent=0, turns=2, runs=1, start_s=0.0, turn_s=405e-6),
    ]
    return Timeline(Account(total_s=810e-6), bars, loops)

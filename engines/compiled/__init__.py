"""The real XLA TPU compiler, for slices that are not there: its schedule read, its time told.

``topology`` describes the slice to the compiler; ``program`` lowers and compiles the Transformer's own jitted functions
with shapes alone; ``cache`` keeps what was compiled; ``hlo`` and ``groups`` read the scheduled text; ``schedule`` types
its instructions (``loops`` counts turns, ``traffic`` bytes); ``links`` times collectives; ``timeline`` walks
it all; ``trace`` writes it for Perfetto.
"""

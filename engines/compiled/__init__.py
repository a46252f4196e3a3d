"""The real XLA compilers, for chips that are not there: their schedules read, their times told.

``targets`` says what a target is: a TPU slice (``topology``) or the GPUs of a node (``gpu_target``). ``program`` lowers
and compiles the Transformer's own jitted functions with shapes alone, ``cache`` keeps what was compiled, ``candidates``
lists what is tried. ``hlo`` and ``groups`` read the scheduled text; ``schedule`` types its instructions (``loops``
counts turns, ``traffic`` bytes, ``flops`` operations). A ``machine`` times them: a TPU by the compiler's cycles and a
torus (``tpu``, ``links``), a GPU by rooflines and a switch (``roofline``, ``switch``). ``timeline`` walks it all,
``trace`` writes it for Perfetto, ``hotspots`` sums it up and ``answer`` makes it a row.
"""

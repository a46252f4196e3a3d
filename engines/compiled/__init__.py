"""The real XLA compilers, for chips that are not present: their schedules read and timed.

``target`` describes a TPU slice, or the GPUs of a node, to its compiler. ``compile`` lowers and compiles the
Transformer's own jitted functions from shapes alone and caches the result. ``hlo`` reads the scheduled text: the
parser, and the schedule with its collectives, trip counts, HBM traffic and operations. ``cost`` times it: a cost model
per kind of chip (cycles and a torus for TPUs; rooflines and a switch for GPUs) and the ``timeline`` that walks the
schedule. ``search`` lists the plans to compile, ``estimate`` makes a row of the fastest, ``perfetto`` writes its trace
and ``hotspots`` sums up where the time goes.
"""

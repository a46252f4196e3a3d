"""Programs of others: any JAX function, scheduled HLO or StableHLO, compiled and timed as our own are.

``placement`` lays a program's mesh over a slice that is not there, ``lowering`` traces a function for it, ``estimate``
compiles and times it. ``breakdown`` tells where the time goes, by source line and by collective; ``repeated`` finds
collectives that fetch what is already there; ``explain`` says both in prose, ``difference`` between two programs.
"""

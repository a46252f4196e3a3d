"""The partitioned Transformer of Pope et al. 2022 in JAX: what engines on JAX share.

``plan`` decides who holds what; ``parameters`` describes and makes the arrays; ``layer`` and ``forward`` compute;
``sampling`` and ``narrowing`` choose tokens, as ``generation`` says; ``decoding`` loops over them; ``functions`` makes
jitted prefill and decode of a plan on any mesh, devices present or not.
"""

"""The partitioned Transformer of Pope et al. 2022 in JAX: what engines on JAX share.

``options`` says how prompts are read and tokens are chosen. ``partition`` decides which chip holds what, ``params``
makes the weights, ``comm`` has the collectives, ``layers`` the layers, and ``generate`` the prefill, the decode loop
and the sampling. ``programs`` makes jitted prefill and decode of a plan on any mesh, whether its devices are present or
not.
"""

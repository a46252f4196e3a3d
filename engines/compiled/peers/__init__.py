"""Programs of others that serve the same models, compiled for the same slice and timed by the same timeline.

A peer runs in a Python of its own (``engine.python``), with its own versions of JAX and of the compiler: ``scripts``
has the program that runs there, which needs nothing of ours. ``engine`` asks it and times what it wrote, ``line`` and
``told`` make a row of it, and one module a peer says which points it runs, and how.
"""

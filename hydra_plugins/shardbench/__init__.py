"""Launchers and sweepers of Hydra that shardbench brings, where those on PyPI are too old for the library beneath.

Hydra imports every module here whose name does not begin with an underscore, whenever it starts.
"""

"""Weights from a checkpoint's folder in Hugging Face's layout, as the canonical tensors of ``engines.weights.random``.

Nothing here imports JAX or PyTorch: an engine opens a :class:`~engines.weights.checkpoint.source.Checkpoint` and takes
from it the ranges that each device holds. Only a quantized matrix needs more: the scale of an output channel depends
on all of the channel's inputs, a part of which other devices hold.
"""

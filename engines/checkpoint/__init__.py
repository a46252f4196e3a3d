"""Weights from a checkpoint's folder in Hugging Face's layout, as the canonical tensors of ``engines.weights``.

Nothing here imports JAX or PyTorch: an engine opens a :class:`engines.checkpoint.source.Checkpoint` and takes from it
the ranges that each device holds.
"""

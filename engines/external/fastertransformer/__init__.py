"""NVIDIA FasterTransformer, run through its example program for GPT."""

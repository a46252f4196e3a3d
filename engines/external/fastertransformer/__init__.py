"""NVIDIA FasterTransformer, run as a whole by its example program for GPT."""

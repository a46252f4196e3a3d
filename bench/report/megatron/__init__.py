"""Megatron's partitioning: published beside FasterTransformer, predicted, and measured pipelines."""

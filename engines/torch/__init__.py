"""The engine on PyTorch: Megatron's tensor parallelism and pipeline stages, on GPUs and on CPU cores."""

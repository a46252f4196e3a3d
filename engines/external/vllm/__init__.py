"""vLLM, run as a whole by its own ``vllm bench latency``."""

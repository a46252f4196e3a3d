"""vLLM, run through its own ``vllm bench latency``."""

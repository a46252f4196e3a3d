"""NVIDIA TensorRT-LLM, run as a whole by its own ``trtllm-bench``."""

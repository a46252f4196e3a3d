"""NVIDIA TensorRT-LLM, run through its own ``trtllm-bench``."""

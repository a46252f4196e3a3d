"""The measured engine on JAX: one code path for TPU, GPU and virtual CPU devices."""

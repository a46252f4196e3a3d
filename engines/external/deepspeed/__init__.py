"""DeepSpeed: ZeRO-Inference where weights are offloaded, else its inference engine, run in its own Python."""

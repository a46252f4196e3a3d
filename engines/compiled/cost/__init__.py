"""Times of a schedule: cost models of TPUs and GPUs, and the timeline over them."""

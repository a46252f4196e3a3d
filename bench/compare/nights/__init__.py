"""Many nights of one sweep: what changed, on which night, and since when."""

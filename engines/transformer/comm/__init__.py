"""Communication between chips: collectives, rings, collective matmuls and their volume."""

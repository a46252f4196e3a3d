"""Stands in for nvidia-smi: prints the names in STAND_IN_GPUS, separated by commas."""

import os

for name in os.environ.get("STAND_IN_GPUS", "").split(","):
    print(name)

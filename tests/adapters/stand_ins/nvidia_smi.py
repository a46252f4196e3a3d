"""Stands in for nvidia-smi: prints the names in STAND_IN_GPUS, separated by commas, or for each STAND_IN_POWER."""

import os
import sys

for name in os.environ.get("STAND_IN_GPUS", "").split(","):
    print(os.environ.get("STAND_IN_POWER", "[N/A], [N/A]") if "power" in sys.argv[1] else name)

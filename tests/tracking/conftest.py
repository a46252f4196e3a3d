"""Rows for tests are made by ``tests/store/a_row.py``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "store"))

"""Stands in for mpirun: ``-n N PROGRAM ARGUMENTS`` starts N copies and fails where one fails."""

import os
import subprocess
import sys

assert sys.argv[1] == "-n"
ranks = [subprocess.Popen(sys.argv[3:], env={**os.environ, "RANK": str(rank)}) for rank in range(int(sys.argv[2]))]
sys.exit(max(abs(rank.wait()) for rank in ranks))

"""DeepSpeed's launcher as the adapter calls it: keeps the request, and prints what the script would."""

import json
import os
import shutil
import sys
from pathlib import Path

words = sys.argv[1:]
assert words[0] == "--num_gpus", words
script, request = Path(words[-2]), Path(words[-1])
assert script.name == "measure.py"
assert script.is_file()
asked = json.loads(request.read_text(encoding="utf-8"))
shutil.copytree(request.parent, os.environ["STAND_IN_FOLDER"], dirs_exist_ok=True)
mode = os.environ.get("STAND_IN_MODE", "")
if mode == "oom":
    print("torch.OutOfMemoryError: CUDA out of memory")
    sys.exit(1)
print("[INFO] a line of the launcher's log")
if mode != "silent":
    times = {"samples_s": [0.5, 0.25, 0.75][: asked["runs"]], "versions": {"deepspeed": "0.19"}}
    print(f"[rank0]: SHARDBENCH {json.dumps(times)}")

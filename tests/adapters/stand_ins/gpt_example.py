"""Stands in for multi_gpu_gpt_example: reads its two files and answers as STAND_IN says."""

import configparser
import os
import sys
import time
from pathlib import Path

mode = os.environ.get("STAND_IN", "works")
rank = int(os.environ["RANK"])
config = configparser.ConfigParser()
assert config.read(sys.argv[1])
instance, request = config["ft_instance_hyperparameter"], config["request"]
model = config[instance["model_name"]]
prompts = [line.split(",") for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()]
assert len(prompts) == int(request["request_batch_size"]) == int(instance["max_batch_size"])
assert len({len(line) for line in prompts}) == 1
assert all(0 <= int(token) < int(model["vocab_size"]) for line in prompts for token in line)
print("[INFO] Device: a stand-in", flush=True)
if "STAND_IN_FOLDER" in os.environ:
    folder = Path(os.environ["STAND_IN_FOLDER"])
    (folder / "config.ini").write_text(Path(sys.argv[1]).read_text(encoding="utf-8"), encoding="utf-8")
    # Whole at once: who sees it may read it.
    (folder / f"part-{rank}").write_text(str(os.getpid()), encoding="utf-8")
    (folder / f"part-{rank}").rename(folder / f"pid-{rank}")
if mode == "hangs":
    time.sleep(600)
if mode == "fails":
    print("[FT][ERROR] the weights are not there", file=sys.stderr)
    sys.exit(7)
if mode == "memory":
    print("[FT][ERROR] CUDA runtime error: out of memory", file=sys.stderr)
    sys.exit(1)
if mode == "garbage":
    print("\x00\xff [INFO] request_batch_size many", flush=True)
    sys.exit(0)
if mode == "silent":
    sys.exit(0)
if rank == 0:
    length = len(prompts[0]) + int(request["request_output_len"])
    layers = int(model["decoder_layers"]) + (mode == "another")
    milliseconds = {"zero": "0.00"}.get(mode, "123.45")
    print(
        f"[INFO] request_batch_size {request['request_batch_size']} beam_width {instance['beam_width']} "
        f"head_num {model['head_num']} size_per_head {model['size_per_head']} total_output_len {length} "
        f"decoder_layers {layers} vocab_size {model['vocab_size']} "
        f"FT-CPP-decoding-beamsearch-time {milliseconds} ms"
    )
